//! A fake nf_tables: it holds what it is told, refuses what the kernel would refuse, and reads back what it holds.
//!
//! It is stricter than the kernel where that finds mistakes: it refuses an element that stands already.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use portolan_dataplane::nftables::{
    ChainId, Element, Nftables, Op, Ops, Readback, Rule, State, adopt,
};
use portolan_model::{ApplyError, Family, Target};

/// The two tables of one network namespace.
#[derive(Clone, Debug, Default)]
pub struct FakeNft {
    tables: [Option<Table>; 2],
}

#[derive(Clone, Debug, Default)]
struct Table {
    chains: BTreeMap<ChainId, Vec<Rule>>,
    elements: BTreeSet<Element>,
}

impl FakeNft {
    /// What somebody does who flushes all rules of the machine.
    pub fn wipe(&mut self) {
        *self = FakeNft::default();
    }
}

impl Target<Nftables> for FakeNft {
    fn apply(&mut self, ops: &Ops) -> Result<(), ApplyError> {
        for transaction in ops.transactions() {
            let mut after = self.clone();
            for (index, op) in transaction.into_iter().enumerate() {
                after.op(op).map_err(|words| ApplyError {
                    doing: format!("nf_tables refused step {index} ({op:?})"),
                    words: words.to_owned(),
                })?;
            }
            *self = after;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Option<State>, ApplyError> {
        let [Some(v4), Some(v6)] = &self.tables else {
            return Ok(None);
        };
        Ok(adopt(&[v4.readback(Family::V4), v6.readback(Family::V6)]))
    }
}

const MISSING: &str = "No such file or directory";
const STANDS: &str = "File exists";
const IN_USE: &str = "Device or resource busy";

impl FakeNft {
    fn op(&mut self, op: &Op) -> Result<(), &'static str> {
        if let Op::Reset(family) = op {
            self.tables[*family as usize] = Some(Table::default());
            return Ok(());
        }
        let (Op::Reset(family)
        | Op::AddChain(family, _)
        | Op::FlushChain(family, _)
        | Op::AddRules(family, ..)
        | Op::DeleteElements(family, ..)
        | Op::ForgetElements(family, ..)
        | Op::AddElements(family, ..)
        | Op::DeleteChain(family, _)) = op;
        let table = self.tables[*family as usize].as_mut().ok_or(MISSING)?;
        table.op(op)
    }
}

/// The chain that an element of a verdict map leads to.
fn leads_to(element: &Element) -> Option<ChainId> {
    match element {
        Element::Class(_, class) => Some(ChainId::Class(*class)),
        Element::Turn(turn) => Some(ChainId::Turn(*turn)),
        _ => None,
    }
}

impl Table {
    fn op(&mut self, op: &Op) -> Result<(), &'static str> {
        match op {
            Op::Reset(_) => {}
            Op::AddChain(_, chain) => match self.chains.contains_key(chain) {
                true => return Err(STANDS),
                false => drop(self.chains.insert(*chain, Vec::new())),
            },
            Op::FlushChain(_, chain) => self.chains.get_mut(chain).ok_or(MISSING)?.clear(),
            Op::AddRules(_, chain, rules) => {
                let standing = self.chains.get_mut(chain).ok_or(MISSING)?;
                standing.extend(rules.iter().cloned());
            }
            Op::DeleteElements(_, _, elements) | Op::ForgetElements(_, _, elements) => {
                for element in elements {
                    self.elements.remove(element).then_some(()).ok_or(MISSING)?;
                }
            }
            Op::AddElements(_, _, elements) => {
                for element in elements {
                    if leads_to(element).is_some_and(|chain| !self.chains.contains_key(&chain)) {
                        return Err(MISSING);
                    }
                    self.elements.insert(*element).then_some(()).ok_or(STANDS)?;
                }
            }
            Op::DeleteChain(_, chain) => {
                if self.elements.iter().any(|e| leads_to(e) == Some(*chain)) {
                    return Err(IN_USE);
                }
                self.chains.remove(chain).ok_or(MISSING)?;
            }
        }
        Ok(())
    }

    fn readback(&self, family: Family) -> Readback {
        let chain = |(id, rules): (&ChainId, &Vec<Rule>)| {
            (
                id.to_string(),
                rules.iter().map(|rule| rule.digest(family)).collect(),
            )
        };
        Readback {
            chains: self.chains.iter().map(chain).collect(),
            elements: self.elements.iter().copied().collect(),
        }
    }
}
