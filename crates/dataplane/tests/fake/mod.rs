//! A kernel that is as strict as the real one: what exists is not made again, what is in use is not removed.
#![allow(dead_code)] // Tests of two crates use it, each what it needs.

use std::collections::{BTreeMap, BTreeSet};

use portolan_dataplane::nftables::{
    ChainId, Element, Expr, Op, Ops, Readback, Rule, SetName, State, adopt,
};
use portolan_model::{Endpoint, NodeFacts, PortKey, Protocol, ServicePort, Snapshot};

#[derive(Clone, Default)]
struct FakeTable {
    chains: BTreeMap<String, Vec<Rule>>,
    /// By set and key, as bytes.
    elements: BTreeMap<(SetName, Vec<u8>), Element>,
}

/// Two tables; `None` until the first reset.
#[derive(Clone, Default)]
pub struct FakeKernel {
    tables: [Option<FakeTable>; 2],
}

fn key_of(element: &Element) -> (SetName, Vec<u8>) {
    let mut key = Vec::new();
    element.write_key(&mut key);
    element.write_key_end(&mut key);
    (element.set(), key)
}

impl FakeKernel {
    /// One transaction after the other.
    pub fn apply(&mut self, ops: &Ops) -> Result<(), String> {
        let all = ops.transactions();
        all.iter().try_for_each(|ops| self.transact(ops))
    }

    /// All or nothing; what stands after it is checked.
    pub fn transact(&mut self, ops: &[&Op]) -> Result<(), String> {
        let mut next = self.clone();
        ops.iter().try_for_each(|op| next.op(op))?;
        next.check()?;
        *self = next;
        Ok(())
    }

    /// All elements that stand.
    pub fn elements(&self) -> BTreeSet<Element> {
        let tables = self.tables.iter().flatten();
        tables.flat_map(|t| t.elements.values().copied()).collect()
    }

    /// What stands, through bytes and back.
    pub fn read(&self) -> Option<State> {
        adopt(&self.found()?)
    }

    /// What is found when the kernel is asked.
    pub fn found(&self) -> Option<[Readback; 2]> {
        let mut found = <[Readback; 2]>::default();
        for (family, found) in portolan_model::Family::ALL.into_iter().zip(&mut found) {
            let table = self.tables[family as usize].as_ref()?;
            for (name, rules) in &table.chains {
                let digests = rules.iter().map(|rule| rule.digest(family)).collect();
                found.chains.push((name.clone(), digests));
            }
            // A kernel tells them in no order.
            for element in table.elements.values().rev() {
                let (mut key, mut end, mut data) = (Vec::new(), Vec::new(), Vec::new());
                element.write_key(&mut key);
                let end = element.write_key_end(&mut end).then_some(end.as_slice());
                element.write_data(&mut data);
                let read = Element::read(family, element.set(), &key, end, &data)?;
                assert_eq!(read, *element);
                found.elements.push(read);
            }
        }
        Some(found)
    }

    fn op(&mut self, op: &Op) -> Result<(), String> {
        let family = match op {
            Op::Reset(family) => {
                self.tables[*family as usize] = Some(FakeTable::default());
                return Ok(());
            }
            Op::AddChain(family, _)
            | Op::FlushChain(family, _)
            | Op::AddRules(family, ..)
            | Op::DeleteElements(family, ..)
            | Op::ForgetElements(family, ..)
            | Op::AddElements(family, ..)
            | Op::DeleteChain(family, _) => *family,
        };
        let table = self.tables[family as usize].as_mut().ok_or("no table")?;
        match op {
            Op::Reset(_) => {}
            Op::AddChain(_, chain) => {
                let old = table.chains.insert(chain.to_string(), Vec::new());
                old.map_or(Ok(()), |_| Err(format!("{chain} exists")))?;
            }
            Op::FlushChain(_, chain) => table.chain(chain)?.clear(),
            Op::AddRules(_, chain, rules) => {
                table.chain(chain)?.extend(rules.iter().cloned());
                self.check()?;
            }
            Op::DeleteElements(_, set, all) | Op::ForgetElements(_, set, all) => {
                for element in all {
                    assert_eq!(element.set(), *set);
                    let old = table.elements.remove(&key_of(element));
                    old.ok_or(format!("no {element} in {set:?}"))?;
                }
            }
            Op::AddElements(_, set, all) => {
                for element in all {
                    assert_eq!(element.set(), *set);
                    let old = table.elements.insert(key_of(element), *element);
                    old.map_or(Ok(()), |old| Err(format!("{old} exists in {set:?}")))?;
                }
                self.check()?;
            }
            Op::DeleteChain(_, chain) => {
                let used = table.targets().contains(&chain.to_string());
                (!used).then_some(()).ok_or(format!("{chain} is in use"))?;
                table.chains.remove(&chain.to_string()).ok_or("no chain")?;
            }
        }
        Ok(())
    }

    /// Whatever something leads to stands.
    fn check(&self) -> Result<(), String> {
        for table in self.tables.iter().flatten() {
            let missing = table.targets().into_iter();
            let mut missing = missing.filter(|chain| !table.chains.contains_key(chain));
            if let Some(chain) = missing.next() {
                return Err(format!("no chain {chain}"));
            }
        }
        Ok(())
    }
}

impl FakeTable {
    fn chain(&mut self, chain: &ChainId) -> Result<&mut Vec<Rule>, String> {
        let found = self.chains.get_mut(&chain.to_string());
        found.ok_or(format!("no chain {chain}"))
    }

    fn targets(&self) -> BTreeSet<String> {
        let mut all: BTreeSet<String> = BTreeSet::new();
        for rule in self.chains.values().flatten() {
            for expr in &rule.0 {
                if let Expr::Jump(chain) = expr {
                    all.insert(chain.to_string());
                }
            }
        }
        for element in self.elements.values() {
            match element {
                Element::Class(_, class) => drop(all.insert(class.to_string())),
                Element::Turn(turn) => drop(all.insert(turn.to_string())),
                _ => {}
            }
        }
        all
    }
}

/// `count` Services with two endpoints each.
pub fn many_services(count: usize) -> Snapshot {
    let ip = |base: [u8; 2], n: usize| {
        let n = n as u32;
        std::net::IpAddr::from([base[0], base[1] + (n >> 16) as u8, (n >> 8) as u8, n as u8])
    };
    let mut snapshot = Snapshot::new(NodeFacts {
        name: "n1".into(),
        local_pods: portolan_model::LocalPods::Cidrs(vec![
            ipnet::IpNet::new([10, 0, 0, 0].into(), 8).expect("a prefix"),
        ]),
        service_cidrs: vec![ipnet::IpNet::new([172, 16, 0, 0].into(), 12).expect("a prefix")],
        ..NodeFacts::default()
    });
    for index in 0..count {
        let key = PortKey::new("shop", &format!("s{index:06}"), "http", Protocol::Tcp);
        let endpoint = |n| Endpoint::ready((ip([10, 0], n), 8080).into());
        let port = std::num::NonZeroU16::new(80).expect("not zero");
        snapshot.set(ServicePort {
            cluster_ips: vec![ip([172, 16], index)],
            endpoints: [endpoint(2 * index), endpoint(2 * index + 1)].into(),
            ..ServicePort::new(key, port)
        });
    }
    snapshot
}
