//! The table that brings packets to virtual servers (`dataplane::ipvs::path`): it is written once and stays.

use portolan_dataplane::ipvs::{PATH_TABLE, path};
use portolan_model::{ApplyError, Family};

use super::numbers::*;
use super::rules::{read_digest, write_rule};
use super::side::{message, transact, write_chain};
use crate::nfnetlink::socket::Nfnetlink;
use crate::nfnetlink::wire::{APPEND, CREATE, DUMP, Writer, nfproto};

/// Whether both tables stand with the rules that they should have, each in its chain.
pub(crate) fn stands(socket: &mut Nfnetlink) -> Result<bool, ApplyError> {
    for family in Family::ALL {
        let wanted = path().map(|(chain, rule)| (chain.name.to_owned(), rule.digest(family)));
        let mut found = Vec::new();
        let question = |out: &mut Writer| {
            out.begin(MSG_GETRULE, DUMP, nfproto(family));
            out.text(TABLE, PATH_TABLE);
        };
        socket.ask("cannot list the rules of ipvs mode", question, |rule| {
            let ours = rule.text(TABLE) == Some(PATH_TABLE);
            if let Some(chain) = rule.text(RULE_CHAIN).filter(|_| ours) {
                let digest = rule.find(RULE_USERDATA).map_or(0, read_digest);
                found.push((chain.to_owned(), digest));
            }
        })?;
        found.sort();
        let mut wanted = wanted.to_vec();
        wanted.sort();
        if found != wanted {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes both tables anew, whatever stands there, in one transaction.
pub(crate) fn write(socket: &mut Nfnetlink) -> Result<(), ApplyError> {
    transact(socket, "cannot write the rules of ipvs mode", |out| {
        for family in Family::ALL {
            message(out, PATH_TABLE, MSG_NEWTABLE, CREATE, family, |_| {});
            message(out, PATH_TABLE, MSG_DELTABLE, 0, family, |_| {});
            message(out, PATH_TABLE, MSG_NEWTABLE, CREATE, family, |_| {});
            for (chain, rule) in path() {
                let place = (chain.kind, chain.hook, chain.priority);
                write_chain(out, PATH_TABLE, family, chain.name, place);
                message(
                    out,
                    PATH_TABLE,
                    MSG_NEWRULE,
                    CREATE | APPEND,
                    family,
                    |out| {
                        out.text(RULE_CHAIN, chain.name);
                        write_rule(out, family, &rule);
                    },
                );
            }
        }
    })
}

/// Takes both tables away.
pub(crate) fn remove(socket: &mut Nfnetlink) -> Result<(), ApplyError> {
    transact(socket, "cannot remove the rules of ipvs mode", |out| {
        for family in Family::ALL {
            message(out, PATH_TABLE, MSG_NEWTABLE, CREATE, family, |_| {});
            message(out, PATH_TABLE, MSG_DELTABLE, 0, family, |_| {});
        }
    })
}
