//! Reading our tables back: chains with the digests of their rules, sets, elements.

use std::collections::BTreeMap;

use portolan_dataplane::nftables::{
    BaseChain, ChainId, Element, Kind, Readback, SetName, TABLE as OUR_TABLE,
};
use portolan_model::{ApplyError, Family};

use super::batch::{Shape, Standing};
use super::numbers::*;
use super::rules::read_digest;
use crate::nfnetlink::socket::{Answer, Nfnetlink};
use crate::nfnetlink::wire::{Attributes, DUMP, Writer, nfproto};

impl Nfnetlink {
    /// The generation of the namespace's rule set; every transaction makes it one more.
    pub(crate) fn generation(&mut self) -> Result<u32, ApplyError> {
        let mut generation = None;
        let question = |out: &mut Writer| out.begin(MSG_GETGEN, 0, 0);
        self.ask("cannot ask nf_tables for its generation", question, |a| {
            generation = generation.or(a.number(GEN_ID));
        })?;
        generation.ok_or_else(|| ApplyError {
            doing: "cannot ask nf_tables for its generation".into(),
            words: "no answer".into(),
        })
    }
}

/// What was found of one table.
pub(super) enum Found {
    /// It stands and every part of it looks like ours.
    Ours(Readback),
    /// There is no table, or something in it is not as we make it.
    Foreign,
    /// The rule set changed while it was read.
    Interrupted,
}

/// A chain as it is told: its name, hook and priority.
struct ChainFound {
    name: String,
    hook: Option<(u32, i32)>,
}

fn dump(kind: u16, family: Family, filter: impl Fn(&mut Writer)) -> impl Fn(&mut Writer) {
    move |out| {
        out.begin(kind, DUMP, nfproto(family));
        filter(out);
    }
}

fn ours(attributes: Attributes<'_>) -> bool {
    attributes.text(TABLE) == Some(OUR_TABLE)
}

/// The names of what stands, for a reset.
pub(super) fn standing(socket: &mut Nfnetlink, family: Family) -> Result<Standing, ApplyError> {
    let mut standing = Standing::default();
    let (chains, _) = chains(socket, family)?;
    standing.chains = chains.into_iter().map(|chain| chain.name).collect();
    let (sets, _) = sets(socket, family)?;
    let memory = SetName::Affinity;
    standing.memory = sets.get(memory.name()) == Some(&Shape::of(family, memory));
    standing.sets = sets.into_keys().collect();
    Ok(standing)
}

/// Everything that stands in the table of `family`.
pub(super) fn table(socket: &mut Nfnetlink, family: Family) -> Result<Found, ApplyError> {
    let (chains, answer) = chains(socket, family)?;
    if answer == Answer::Interrupted {
        return Ok(Found::Interrupted);
    }
    let (sets, answer) = sets(socket, family)?;
    match answer {
        Answer::Interrupted => return Ok(Found::Interrupted),
        Answer::Nothing => return Ok(Found::Foreign),
        Answer::Whole => {}
    }
    let expected = SetName::ALL.map(|set| (set.name().to_owned(), Shape::of(family, set)));
    if sets != BTreeMap::from(expected) || !chains.iter().all(has_its_hook) {
        return Ok(Found::Foreign);
    }
    let mut rules: BTreeMap<String, Vec<u64>> = chains
        .into_iter()
        .map(|chain| (chain.name, Vec::new()))
        .collect();
    let question = dump(MSG_GETRULE, family, |out| out.text(TABLE, OUR_TABLE));
    let answer = socket.ask("cannot list rules", question, |rule| {
        if let Some(chain) = rule.text(RULE_CHAIN).filter(|_| ours(rule)) {
            let digest = rule.find(RULE_USERDATA).map_or(0, read_digest);
            rules.entry(chain.into()).or_default().push(digest);
        }
    })?;
    if answer == Answer::Interrupted {
        return Ok(Found::Interrupted);
    }
    let mut found = Readback {
        chains: rules.into_iter().collect(),
        elements: Vec::new(),
    };
    for set in SetName::ALL {
        if set == SetName::Affinity {
            continue;
        }
        match elements(socket, family, set, &mut found.elements)? {
            (Answer::Interrupted, _) => return Ok(Found::Interrupted),
            (_, false) => return Ok(Found::Foreign),
            _ => {}
        }
    }
    Ok(Found::Ours(found))
}

fn has_its_hook(chain: &ChainFound) -> bool {
    let named = |base: &BaseChain| ChainId::Base(*base).to_string() == chain.name;
    let base = BaseChain::ALL.into_iter().find(named);
    base.and_then(BaseChain::hook) == chain.hook
}

fn chains(socket: &mut Nfnetlink, family: Family) -> Result<(Vec<ChainFound>, Answer), ApplyError> {
    let mut all = Vec::new();
    let question = dump(MSG_GETCHAIN, family, |_| {});
    let answer = socket.ask("cannot list chains", question, |chain| {
        let Some(name) = chain.text(CHAIN_NAME).filter(|_| ours(chain)) else {
            return;
        };
        let hook = chain.nested(CHAIN_HOOK).and_then(|hook| {
            let priority = hook.number(HOOK_PRIORITY)? as i32;
            Some((hook.number(HOOK_HOOKNUM)?, priority))
        });
        all.push(ChainFound {
            name: name.into(),
            hook,
        });
    })?;
    Ok((all, answer))
}

fn sets(
    socket: &mut Nfnetlink,
    family: Family,
) -> Result<(BTreeMap<String, Shape>, Answer), ApplyError> {
    let mut all = BTreeMap::new();
    let question = dump(MSG_GETSET, family, |out| out.text(TABLE, OUR_TABLE));
    let answer = socket.ask("cannot list sets", question, |set| {
        let Some(name) = set.text(SET_NAME).filter(|_| ours(set)) else {
            return;
        };
        let data = set.number(SET_DATA_TYPE).map(|kind| match kind {
            DATATYPE_VERDICT => (kind, 0),
            _ => (kind, set.number(SET_DATA_LEN).unwrap_or(0)),
        });
        let shape = Shape {
            flags: set.number(SET_FLAGS).unwrap_or(0),
            key_type: set.number(SET_KEY_TYPE).unwrap_or(0),
            key_len: set.number(SET_KEY_LEN).unwrap_or(0),
            data,
        };
        all.insert(name.to_owned(), shape);
    })?;
    Ok((all, answer))
}

/// Adds the elements of a set to `all`; false if one of them is none that we write.
fn elements(
    socket: &mut Nfnetlink,
    family: Family,
    set: SetName,
    all: &mut Vec<Element>,
) -> Result<(Answer, bool), ApplyError> {
    let mut understood = true;
    let mut bounds = Vec::new();
    let question = dump(MSG_GETSETELEM, family, |out| {
        out.text(TABLE, OUR_TABLE);
        out.text(SET_ELEM_LIST_SET, set.name());
    });
    let doing = format!("cannot list elements of {}", set.name());
    let answer = socket.ask(&doing, question, |message| {
        let list = message.nested(SET_ELEM_LIST_ELEMENTS);
        for (_, element) in list.into_iter().flat_map(Attributes::all) {
            let element = Attributes(element);
            if set.kind() == Kind::Ranges {
                bounds.extend(bound(element));
                continue;
            }
            match element_of(family, set, element) {
                Some(element) => all.push(element),
                None => understood = false,
            }
        }
    })?;
    bounds.sort();
    let mut bounds = bounds.into_iter().peekable();
    while let Some((first, is_end)) = bounds.next() {
        let end = bounds.next_if(|(_, is_end)| *is_end);
        let end = end.as_ref().map(|(end, _)| end.as_slice());
        match Element::read(family, set, &first, end, &[]) {
            Some(element) if !is_end => all.push(element),
            _ => understood = false,
        }
    }
    Ok((answer, understood))
}

fn value(attributes: Option<Attributes<'_>>) -> Option<&[u8]> {
    attributes?.find(DATA_VALUE)
}

/// The start or the end (true) of a range. A range that ends where the next one starts gives both at one address,
/// the end first.
fn bound(element: Attributes<'_>) -> Option<(Vec<u8>, bool)> {
    let key = value(element.nested(SET_ELEM_KEY))?;
    let flags = element.number(SET_ELEM_FLAGS).unwrap_or(0);
    Some((key.to_vec(), flags & SET_ELEM_INTERVAL_END != 0))
}

fn element_of(family: Family, set: SetName, element: Attributes<'_>) -> Option<Element> {
    let key = value(element.nested(SET_ELEM_KEY))?;
    let end = value(element.nested(SET_ELEM_KEY_END));
    let data = element.nested(SET_ELEM_DATA);
    let bytes = value(data).unwrap_or(&[]);
    let found = Element::read(family, set, key, end, bytes)?;
    let leads_to = |chain: ChainId| {
        let verdict = data?.nested(DATA_VERDICT)?;
        let goto = verdict.number(VERDICT_CODE)? as i32 == VERDICT_GOTO;
        (goto && verdict.text(VERDICT_CHAIN)? == chain.to_string()).then_some(())
    };
    match &found {
        Element::Class(_, class) => leads_to(ChainId::Class(*class))?,
        Element::Turn(turn) => leads_to(ChainId::Turn(*turn))?,
        _ => {}
    }
    Some(found)
}
