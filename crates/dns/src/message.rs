//! Whole messages as values: answers of other servers, and answers that plugins make or change.
//!
//! This is off the hot path: [`crate::wire`] answers queries for our own names without allocation. Names in the data of
//! the types of RFC 1035 and RFC 3597, section 4, are written out when a message is read, so that records can be moved
//! between messages.

mod data;
mod read;
mod text;
mod write;

pub use data::{address, name_in, soa_minimum, with_name};
pub use read::Malformed;
pub use text::record;
pub use write::{Opt, encoded_for};

use crate::wire::{Name, Query, class, rcode, rtype};

/// Records of one message that are read: 65 535 bytes hold some 5 900 of the smallest.
pub const RECORDS_MAX: usize = 6_000;

/// A question (RFC 1035, section 4.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// As it was asked.
    pub name: Name,
    /// Type.
    pub rtype: u16,
    /// Class.
    pub class: u16,
}

/// A record (RFC 1035, section 4.1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose it is.
    pub name: Name,
    /// Type.
    pub rtype: u16,
    /// Class.
    pub class: u16,
    /// Seconds.
    pub ttl: u32,
    /// Uncompressed.
    pub data: Box<[u8]>,
}

impl Record {
    /// A record of class IN.
    pub fn new(name: Name, rtype: u16, ttl: u32, data: impl Into<Box<[u8]>>) -> Self {
        Record {
            name,
            rtype,
            class: class::IN,
            ttl,
            data: data.into(),
        }
    }
}

/// A message without its OPT record, which belongs to one hop only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The number that brings answer and query together.
    pub id: u16,
    /// Whether it is an answer.
    pub response: bool,
    /// AA.
    pub authoritative: bool,
    /// TC.
    pub truncated: bool,
    /// RD.
    pub recursion_desired: bool,
    /// RA.
    pub recursion_available: bool,
    /// AD.
    pub authentic_data: bool,
    /// CD.
    pub checking_disabled: bool,
    /// The whole response code, with the bits that OPT holds.
    pub rcode: u16,
    /// The question; messages with none or several are not read.
    pub question: Question,
    /// What was asked for.
    pub answers: Vec<Record>,
    /// Who is responsible.
    pub authorities: Vec<Record>,
    /// What may be useful, too; without OPT.
    pub additionals: Vec<Record>,
    /// An extended error (RFC 8914): its code and text.
    pub error: Option<(u16, String)>,
}

impl Message {
    /// An answer to a question, without records.
    pub fn answer(question: Question, rcode: u16) -> Self {
        Message {
            id: 0,
            response: true,
            authoritative: false,
            truncated: false,
            recursion_desired: true,
            recursion_available: false,
            authentic_data: false,
            checking_disabled: false,
            rcode,
            question,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            error: None,
        }
    }

    /// Whether it says that the name does not exist.
    pub fn is_nxdomain(&self) -> bool {
        self.rcode == rcode::NXDOMAIN
    }

    /// NOERROR, but without a record of the type that was asked for (RFC 2308, section 2.2).
    pub fn is_nodata(&self) -> bool {
        let wanted = self.question.rtype;
        let fits = |record: &Record| record.rtype == wanted || wanted == rtype::ANY;
        self.rcode == rcode::NOERROR && !self.answers.iter().any(fits)
    }

    /// All records, of every section.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        let sections = [&self.answers, &self.authorities, &self.additionals];
        sections.into_iter().flatten()
    }

    /// The same, to be changed.
    pub fn records_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        let sections = [
            &mut self.answers,
            &mut self.authorities,
            &mut self.additionals,
        ];
        sections.into_iter().flatten()
    }
}

impl Question {
    /// What a query asks for.
    pub fn of(query: &Query<'_>) -> Self {
        Question {
            name: Name::from_wire(query.name).unwrap_or_else(Name::root),
            rtype: query.rtype,
            class: query.class,
        }
    }
}

#[cfg(test)]
mod tests;
