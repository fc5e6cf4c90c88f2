//! In which order the endpoints of one list are tried for a flow. The slots and the hash are the model's.

use std::net::SocketAddr;
use std::sync::Arc;

use portolan_model::balance::CLIENT_SEED;
use portolan_model::hash::{jhash, scale};
use portolan_model::{Action, Balance, Choices, Origin, Treatment};

/// A list of endpoints with its slots, made once for each change.
#[derive(Debug)]
pub(crate) struct Order {
    choices: Choices,
    balance: Balance,
    /// `None` when slot i is endpoint i.
    slots: Option<Vec<u16>>,
    /// Which of the Service port's lists this is: each is counted by itself.
    pub list: usize,
}

impl Order {
    fn of(choices: &Choices, balance: Balance, list: usize) -> Self {
        Order {
            list,
            slots: choices.slots(balance),
            choices: choices.clone(),
            balance,
        }
    }

    fn slot_count(&self) -> usize {
        let all = self.choices.addresses.len();
        self.slots.as_ref().map_or(all, Vec::len)
    }

    /// The slot of a flow: by the hash of the client, if that decides, else the slot whose turn it is. Random is in turn
    /// too: each endpoint has the same chance, and shares are evener than chance makes them.
    pub fn first(&self, turn: usize, client: SocketAddr) -> usize {
        let count = self.slot_count();
        match self.balance.key(client) {
            Some(key) => scale(jhash(&key, CLIENT_SEED), count as u32) as usize,
            None => turn.checked_rem(count).unwrap_or(0),
        }
    }

    /// The endpoint of a slot; slots beyond the last begin anew.
    pub fn at(&self, slot: usize) -> Option<SocketAddr> {
        let slot = slot.checked_rem(self.slot_count())?;
        let index = match &self.slots {
            Some(slots) => usize::from(*slots.get(slot)?),
            None => slot,
        };
        self.choices.addresses.get(index).copied()
    }

    /// The next slot after `slot` that belongs to somebody else; `slot` itself when there is nobody else.
    pub fn after(&self, slot: usize) -> usize {
        let here = self.at(slot);
        let others = (1..self.slot_count()).map(|step| slot + step);
        let mut others = others.filter(|other| self.at(*other) != here);
        others.next().unwrap_or(slot)
    }

    /// A slot of an endpoint, if it may be chosen.
    pub fn slot_of(&self, endpoint: SocketAddr) -> Option<usize> {
        let index = self.choices.addresses.binary_search(&endpoint).ok()?;
        if self.slots.is_none() {
            return Some(index);
        }
        (0..self.slot_count()).find(|slot| self.at(*slot) == Some(endpoint))
    }
}

/// The orders of one treatment, by origin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders([Option<Arc<Order>>; 3]);

impl Orders {
    /// Makes those of `treatments`; equal lists share one.
    pub fn of(treatments: &[Treatment]) -> Vec<Orders> {
        let mut made: Vec<Arc<Order>> = Vec::new();
        let mut order = |action: &Action, balance| {
            let Action::Balance { endpoints, .. } = action else {
                return None;
            };
            let same =
                |order: &&Arc<Order>| order.choices == *endpoints && order.balance == balance;
            if let Some(known) = made.iter().find(same) {
                return Some(Arc::clone(known));
            }
            let new = Arc::new(Order::of(endpoints, balance, made.len()));
            made.push(Arc::clone(&new));
            Some(new)
        };
        let mut all = |t: &Treatment| {
            Orders([&t.pod, &t.host, &t.outside].map(|action| order(action, t.balance)))
        };
        treatments.iter().map(&mut all).collect()
    }

    /// The order for flows of `origin`; `None` when they are rejected or dropped.
    pub fn for_origin(&self, origin: Origin) -> Option<&Arc<Order>> {
        let index = match origin {
            Origin::Pod => 0,
            Origin::Host => 1,
            Origin::Outside => 2,
        };
        self.0[index].as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(weights: &[u16], balance: Balance) -> Order {
        let endpoints = weights
            .iter()
            .enumerate()
            .map(|(index, weight)| (SocketAddr::from(([10, 1, 0, index as u8], 80)), *weight));
        Order::of(&Choices::of(endpoints), balance, 0)
    }

    #[test]
    fn turns_follow_the_weights() {
        let client = "10.1.0.99:4000".parse().unwrap();
        let order = order(&[3, 1], Balance::RoundRobin);
        let heavy = (0..8).filter(|turn| {
            let slot = order.first(*turn, client);
            order.at(slot) == Some("10.1.0.0:80".parse().unwrap())
        });
        assert_eq!(heavy.count(), 6);
    }

    #[test]
    fn a_hash_chooses_what_the_model_says() {
        let order = order(&[1, 1, 1], Balance::SourceHash);
        for last in 0..50 {
            let client = SocketAddr::from(([10, 1, 0, last], 4000));
            let chosen = order.at(order.first(7, client));
            let said = order.choices.shares(Balance::SourceHash, client);
            assert_eq!(chosen, said.first().map(|(endpoint, _)| *endpoint));
        }
    }

    #[test]
    fn every_try_goes_to_another_endpoint() {
        let order = order(&[5, 1, 1], Balance::RoundRobin);
        for slot in 0..7 {
            assert_ne!(order.at(slot), order.at(order.after(slot)), "slot {slot}");
        }
        let alone = self::order(&[1], Balance::Random);
        assert_eq!(alone.after(0), 0);
    }
}
