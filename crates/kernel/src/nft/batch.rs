//! Ops as one batch of messages, each with words for an error about it.

use portolan_dataplane::nftables::{
    AFFINITY_MAX, ChainId, Data, Element, Kind, Op, Part, SetName, TABLE as OUR_TABLE,
};
use portolan_model::Family;

use super::numbers::*;
use super::rules::write_rule;
use crate::nfnetlink::wire::{APPEND, CREATE, Writer, nfproto};

/// What stands of one table before a reset, as far as the reset must know.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// Names of its chains.
    pub chains: Vec<String>,
    /// Names of its sets.
    pub sets: Vec<String>,
    /// Whether the memory of affinity stands and looks as it should.
    pub memory: bool,
}

/// A transaction in the making.
pub(super) struct Batch {
    out: Writer,
    /// Sequence number of the first message, which opens the batch.
    first: u32,
    /// What each message after that is about.
    labels: Vec<String>,
    /// Where each of them starts, and where the last one ends.
    starts: Vec<usize>,
    set_id: u32,
}

/// An attribute has at most 65 535 bytes; a list of elements is closed when it passes this.
const ELEMENTS_BYTES_MAX: usize = 60_000;

/// The messages that open and close a batch, with room to spare.
const BATCH_FRAME_BYTES: usize = 64;

impl Batch {
    pub fn new(sequence: u32, generation: Option<u32>) -> Self {
        let mut out = Writer::new(sequence);
        out.begin_batch(generation);
        Batch {
            out,
            first: sequence,
            labels: Vec::new(),
            starts: Vec::new(),
            set_id: 0,
        }
    }

    /// Closes the batch; the last message is acknowledged when the transaction is through.
    pub fn finish(mut self) -> Self {
        self.starts.push(self.out.bytes.len());
        self.out.acknowledge();
        self.out.end_batch();
        self
    }

    /// The whole batch, as one datagram.
    pub fn bytes(&self) -> &[u8] {
        &self.out.bytes
    }

    /// The sequence number after the last message.
    pub fn sequence_end(&self) -> u32 {
        self.out.sequence
    }

    /// The number and the words of the message with this sequence number.
    pub fn label(&self, sequence: u32) -> Option<(u32, &str)> {
        let number = sequence.checked_sub(self.first)?;
        let label = self.labels.get((number as usize).checked_sub(1)?)?;
        Some((number, label))
    }

    /// The same messages as several batches, each of at most `room` bytes (a longer message stands alone).
    pub fn parts(&self, room: usize) -> Vec<Vec<u8>> {
        let mut parts = Vec::new();
        let mut from = 0;
        while from + 1 < self.starts.len() {
            let start = self.starts[from];
            let fits = |to: &usize| self.starts[*to] - start + BATCH_FRAME_BYTES <= room;
            let last = (from + 1..self.starts.len()).take_while(fits).last();
            let to = last.unwrap_or(from + 1);
            let mut out = Writer::new(self.first);
            out.begin_batch(None);
            out.copy(&self.out.bytes[start..self.starts[to]]);
            out.acknowledge_at(out.bytes.len() - (self.starts[to] - self.starts[to - 1]));
            out.end_batch();
            parts.push(out.bytes);
            from = to;
        }
        parts
    }

    fn message(&mut self, kind: u16, flags: u16, family: Family, label: String) {
        self.starts.push(self.out.bytes.len());
        self.out.begin(kind, flags, nfproto(family));
        self.out.text(TABLE, OUR_TABLE);
        self.labels.push(label);
    }

    pub fn op(&mut self, op: &Op, standing: &[Standing; 2]) {
        match op {
            Op::Reset(family) => self.reset(*family, &standing[*family as usize]),
            Op::AddChain(family, chain) => self.add_chain(*family, chain),
            Op::FlushChain(family, chain) => {
                self.message(MSG_DELRULE, 0, *family, format!("flush {chain}"));
                self.out.text(RULE_CHAIN, &chain.to_string());
                self.out.end();
            }
            Op::AddRules(family, chain, rules) => {
                for rule in rules {
                    let label = format!("new rule in {chain}");
                    self.message(MSG_NEWRULE, CREATE | APPEND, *family, label);
                    self.out.text(RULE_CHAIN, &chain.to_string());
                    write_rule(&mut self.out, *family, rule);
                    self.out.end();
                }
            }
            Op::DeleteElements(family, set, all) | Op::ForgetElements(family, set, all) => {
                self.elements(MSG_DELSETELEM, *family, *set, all);
            }
            Op::AddElements(family, set, all) => self.elements(MSG_NEWSETELEM, *family, *set, all),
            Op::DeleteChain(family, chain) => self.delete_chain(*family, &chain.to_string()),
        }
    }

    fn delete_chain(&mut self, family: Family, chain: &str) {
        self.message(MSG_DELCHAIN, 0, family, format!("delete chain {chain}"));
        self.out.text(CHAIN_NAME, chain);
        self.out.end();
    }

    fn table(&mut self, kind: u16, flags: u16, family: Family, label: &str) {
        self.message(kind, flags, family, label.into());
        self.out.end();
    }

    /// Our table goes, whether it is there or not.
    pub(super) fn remove(&mut self, family: Family) {
        self.table(MSG_NEWTABLE, CREATE, family, "new table");
        self.table(MSG_DELTABLE, 0, family, "delete table");
    }

    /// Rules go first, then sets, then chains: each is in use by the one before it.
    fn reset(&mut self, family: Family, standing: &Standing) {
        self.table(MSG_NEWTABLE, CREATE, family, "new table");
        if standing.memory {
            self.table(MSG_DELRULE, 0, family, "flush table");
            let memory = SetName::Affinity.name();
            for set in standing.sets.iter().filter(|set| *set != memory) {
                self.message(MSG_DELSET, 0, family, format!("delete set {set}"));
                self.out.text(SET_NAME, set);
                self.out.end();
            }
            for chain in &standing.chains {
                self.delete_chain(family, chain);
            }
        } else {
            self.table(MSG_DELTABLE, 0, family, "delete table");
            self.table(MSG_NEWTABLE, CREATE, family, "new table");
        }
        for set in SetName::ALL {
            if set != SetName::Affinity || !standing.memory {
                self.add_set(family, set);
            }
        }
    }

    fn add_chain(&mut self, family: Family, chain: &ChainId) {
        self.message(MSG_NEWCHAIN, CREATE, family, format!("new chain {chain}"));
        self.out.text(CHAIN_NAME, &chain.to_string());
        if let ChainId::Base(base) = chain
            && let Some((hook, priority)) = base.hook()
        {
            self.out.nest(CHAIN_HOOK, |out| {
                out.number(HOOK_HOOKNUM, hook);
                out.number(HOOK_PRIORITY, priority as u32);
            });
            self.out.text(CHAIN_TYPE, "nat");
        }
        self.out.end();
    }

    fn add_set(&mut self, family: Family, set: SetName) {
        self.set_id += 1;
        let label = format!("new set {}", set.name());
        self.message(MSG_NEWSET, CREATE, family, label);
        let shape = Shape::of(family, set);
        let out = &mut self.out;
        out.text(SET_NAME, set.name());
        out.number(SET_ID, self.set_id);
        out.number(SET_FLAGS, shape.flags);
        out.number(SET_KEY_TYPE, shape.key_type);
        out.number(SET_KEY_LEN, shape.key_len);
        if let Some((data_type, data_len)) = shape.data {
            out.number(SET_DATA_TYPE, data_type);
            if data_type != DATATYPE_VERDICT {
                out.number(SET_DATA_LEN, data_len);
            }
        }
        match set.kind() {
            Kind::Hash | Kind::Ranges => {}
            Kind::Memory => out.nest(SET_DESC, |out| out.number(SET_DESC_SIZE, AFFINITY_MAX)),
            Kind::ConcatRanges => out.nest(SET_DESC, |out| {
                out.nest(SET_DESC_CONCAT, |out| {
                    for part in set.key() {
                        let length = part.len(family) as u32;
                        out.nest(LIST_ELEM, |out| out.number(SET_FIELD_LEN, length));
                    }
                });
            }),
        }
        out.end();
    }

    fn elements(&mut self, kind: u16, family: Family, set: SetName, all: &[Element]) {
        let verb = match kind {
            MSG_NEWSETELEM => "new",
            _ => "delete",
        };
        let flags = match kind {
            MSG_NEWSETELEM => CREATE,
            _ => 0,
        };
        let mut all = all.iter().peekable();
        while all.peek().is_some() {
            let label = format!("{verb} elements of {}", set.name());
            self.message(kind, flags, family, label);
            let out = &mut self.out;
            out.text(SET_ELEM_LIST_SET, set.name());
            let list = out.open(SET_ELEM_LIST_ELEMENTS);
            let mut count = 0;
            while out.bytes.len() - list < ELEMENTS_BYTES_MAX {
                let Some(element) = all.next() else { break };
                write_element(out, set, element);
                count += 1;
            }
            out.close(list);
            out.end();
            if let Some(label) = self.labels.last_mut() {
                *label = format!("{verb} {count} elements of {}", set.name());
            }
        }
    }
}

fn write_element(out: &mut Writer, set: SetName, element: &Element) {
    let key = |out: &mut Writer, kind: u16, write: &mut dyn FnMut(&mut Vec<u8>)| {
        out.nest(kind, |out| out.written(DATA_VALUE, |bytes| write(bytes)));
    };
    out.nest(LIST_ELEM, |out| {
        key(out, SET_ELEM_KEY, &mut |bytes| element.write_key(bytes));
        if set.kind() == Kind::ConcatRanges {
            key(out, SET_ELEM_KEY_END, &mut |bytes| {
                element.write_key_end(bytes);
            });
        }
        let mut data = Vec::new();
        match element.write_data(&mut data) {
            Data::None => {}
            Data::Bytes => out.nest(SET_ELEM_DATA, |out| out.raw(DATA_VALUE, &data)),
            Data::Goto(chain) => out.nest(SET_ELEM_DATA, |out| {
                out.nest(DATA_VERDICT, |out| {
                    out.number(VERDICT_CODE, VERDICT_GOTO as u32);
                    out.text(VERDICT_CHAIN, &chain.to_string());
                });
            }),
        }
    });
    let mut end = Vec::new();
    if set.kind() == Kind::Ranges && element.write_key_end(&mut end) {
        out.nest(LIST_ELEM, |out| {
            out.nest(SET_ELEM_KEY, |out| out.raw(DATA_VALUE, &end));
            out.number(SET_ELEM_FLAGS, SET_ELEM_INTERVAL_END);
        });
    }
}

/// How a set is declared; the type numbers are nft's own, so that `nft list` shows elements in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub flags: u32,
    pub key_type: u32,
    pub key_len: u32,
    pub data: Option<(u32, u32)>,
}

impl Shape {
    pub fn of(family: Family, set: SetName) -> Self {
        let kind = |part: &Part| match (part, family) {
            (Part::Address, Family::V4) => 7,
            (Part::Address, Family::V6) => 8,
            (Part::Protocol, _) => 12,
            (Part::Port, _) => 13,
            (Part::Number, _) => 19,
        };
        let types = |parts: &[Part]| parts.iter().fold(0, |all, part| all << 6 | kind(part));
        let length = |parts: &[Part]| {
            let registers = parts.iter().map(|part| u32::from(part.registers(family)));
            registers.sum::<u32>() * 4
        };
        let data = match (set.has_verdicts(), set.data()) {
            (true, _) => Some((DATATYPE_VERDICT, 0)),
            (false, []) => None,
            (false, parts) => Some((types(parts), length(parts))),
        };
        let mut flags = match set.kind() {
            Kind::Hash => 0,
            Kind::Ranges => SET_FLAG_INTERVAL,
            Kind::ConcatRanges => SET_FLAG_INTERVAL | SET_FLAG_CONCAT,
            Kind::Memory => SET_FLAG_TIMEOUT | SET_FLAG_EVAL,
        };
        if data.is_some() {
            flags |= SET_FLAG_MAP;
        }
        Shape {
            flags,
            key_type: types(set.key()),
            key_len: length(set.key()),
            data,
        }
    }
}
