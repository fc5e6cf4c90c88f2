//! A fake of the kernel's tables behind `iptables-restore` and `iptables-save`: it holds what it is told, refuses what
//! the tools would refuse, and prints what it holds.
//!
//! It is stricter where that finds mistakes: a chain must stand before a rule leads to it, and nothing may lead to it
//! when it goes.

use std::collections::BTreeMap;

use portolan_dataplane::iptables::{Hook, Iptables, Ops, Saved, State, Table, adopt, write};
use portolan_model::{ApplyError, Family, Target};

/// The tables of one network namespace.
#[derive(Clone, Debug)]
pub struct FakeIptables {
    /// By family: table, chain, rules as they were written.
    tables: [BTreeMap<Table, BTreeMap<String, Vec<String>>>; 2],
    /// How many lines of text have been read.
    pub lines: usize,
    /// How many chains one commit writes or removes.
    pub chains_max: usize,
}

impl Default for FakeIptables {
    fn default() -> Self {
        let chains = || {
            Hook::ALL
                .map(|hook| (hook.name().to_owned(), Vec::new()))
                .into()
        };
        let tables = || Table::ALL.map(|table| (table, chains())).into();
        FakeIptables {
            tables: [tables(), tables()],
            lines: 0,
            chains_max: 3,
        }
    }
}

impl FakeIptables {
    /// What somebody does who flushes all rules of the machine.
    pub fn wipe(&mut self) {
        *self = FakeIptables::default();
    }

    /// `iptables-restore --noflush`: each table is one commit, and what has been committed stays.
    pub fn restore(&mut self, family: Family, text: &str) -> Result<(), String> {
        let mut open: Option<(Table, BTreeMap<String, Vec<String>>)> = None;
        for (index, line) in text.lines().enumerate() {
            self.lines += 1;
            let told = |words: &str| format!("line {}: {words}: {line}", index + 1);
            let tables = &mut self.tables[family as usize];
            if let Some(name) = line.strip_prefix('*') {
                let table = Table::named(name).ok_or_else(|| told("no such table"))?;
                open = Some((table, tables[&table].clone()));
                continue;
            }
            if line == "COMMIT" {
                let (table, chains) = open.take().ok_or_else(|| told("nothing to commit"))?;
                tables.insert(table, chains);
                continue;
            }
            let (_, chains) = open.as_mut().ok_or_else(|| told("no table"))?;
            step(chains, line).map_err(|words| told(&words))?;
        }
        open.map_or(Ok(()), |_| Err("no COMMIT at the end".to_owned()))
    }

    /// `iptables-save`.
    pub fn save(&self, family: Family) -> String {
        let mut text = String::new();
        for (table, chains) in &self.tables[family as usize] {
            text += &format!("*{}\n", table.name());
            for name in chains.keys() {
                let policy = if Hook::named(name).is_some() {
                    "ACCEPT"
                } else {
                    "-"
                };
                text += &format!(":{name} {policy} [0:0]\n");
            }
            for (name, rules) in chains {
                rules
                    .iter()
                    .for_each(|rule| text += &format!("-A {name} {rule}\n"));
            }
            text += "COMMIT\n";
        }
        text
    }

    /// What stands in one family, understood.
    pub fn saved(&self, family: Family) -> Saved {
        Saved::parse(family, &self.save(family))
    }
}

fn step(chains: &mut BTreeMap<String, Vec<String>>, line: &str) -> Result<(), String> {
    if let Some(rest) = line.strip_prefix(':') {
        let name = rest.split(' ').next().unwrap_or_default();
        chains.insert(name.to_owned(), Vec::new());
        return Ok(());
    }
    let (command, rest) = line.split_once(' ').ok_or("no command")?;
    let (name, rule) = rest.split_once(' ').unwrap_or((rest, ""));
    let leads_to = |rule: &str| {
        let mut words = rule
            .split(' ')
            .skip_while(|word| !matches!(*word, "-j" | "-g"));
        words.nth(1).unwrap_or_default().to_owned()
    };
    let target = leads_to(rule);
    let plain = [
        "ACCEPT",
        "DNAT",
        "DROP",
        "MARK",
        "MASQUERADE",
        "REJECT",
        "RETURN",
    ];
    let known = plain.contains(&target.as_str()) || chains.contains_key(&target);
    if matches!(command, "-A" | "-I") && !known {
        return Err(format!("no chain or target {target:?}"));
    }
    if command == "-X" {
        let mut all = chains.values().flatten();
        if all.any(|rule| leads_to(rule) == name) {
            return Err("Too many links".to_owned());
        }
        let stood = chains.remove(name).ok_or("no such chain")?;
        return stood
            .is_empty()
            .then_some(())
            .ok_or("Directory not empty".to_owned());
    }
    let rules = chains.get_mut(name).ok_or("no such chain")?;
    match command {
        "-A" => rules.push(rule.to_owned()),
        "-I" => rules.insert(0, rule.to_owned()),
        "-D" => {
            let at = rules.iter().position(|known| known == rule);
            rules.remove(at.ok_or("Bad rule (does a matching rule exist in that chain?)")?);
        }
        _ => return Err("unknown command".to_owned()),
    }
    Ok(())
}

impl Target<Iptables> for FakeIptables {
    fn apply(&mut self, ops: &Ops) -> Result<(), ApplyError> {
        let mut after = self.clone();
        for family in Family::ALL {
            let mut text = String::new();
            let found = after.saved(family);
            write(ops, family, &found, self.chains_max, &mut text).expect("a String takes all");
            after.restore(family, &text).map_err(|words| ApplyError {
                doing: "iptables-restore refused".to_owned(),
                words,
            })?;
        }
        *self = after;
        Ok(())
    }

    fn read(&mut self) -> Result<Option<State>, ApplyError> {
        Ok(adopt(&Family::ALL.map(|family| self.saved(family))))
    }
}
