//! A name that is asked for, cut into labels and in lower case, without allocation.

use super::config::{Apex, Prepared};
use crate::wire::NAME_BYTES_MAX;

/// A name of 255 bytes has no more labels than this, and the root's.
const LABELS_MAX: usize = 128;

/// A name and where its labels begin.
pub(super) struct Asked {
    lower: [u8; NAME_BYTES_MAX],
    length: usize,
    offsets: [u8; LABELS_MAX],
    count: usize,
}

/// The zone of a name, and how many labels stand before it.
#[derive(Clone, Copy)]
pub(super) struct Within<'c> {
    pub apex: &'c Apex,
    pub labels: usize,
}

impl Asked {
    /// Reads an uncompressed name; `None` when it is none.
    pub fn read(name: &[u8]) -> Option<Self> {
        let mut asked = Asked {
            lower: [0; NAME_BYTES_MAX],
            length: name.len(),
            offsets: [0; LABELS_MAX],
            count: 0,
        };
        let lower = asked.lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        let mut at = 0;
        while let length @ 1..=63 = usize::from(*name.get(at)?) {
            *asked.offsets.get_mut(asked.count)? = at as u8;
            asked.count += 1;
            at += 1 + length;
        }
        (at + 1 == name.len() && name[at] == 0).then_some(asked)
    }

    /// Labels without the root's.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Where the label with this number begins; the root's is the last one.
    pub fn offset(&self, label: usize) -> usize {
        match label < self.count {
            true => usize::from(self.offsets[label]),
            false => self.length - 1,
        }
    }

    /// One label in lower case.
    pub fn label(&self, label: usize) -> &[u8] {
        &self.lower[self.offset(label) + 1..self.offset(label + 1)]
    }

    /// Labels in lower case as they are on the wire.
    pub fn span(&self, from: usize, to: usize) -> &[u8] {
        &self.lower[self.offset(from)..self.offset(to)]
    }

    /// All labels in lower case.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        (0..self.count).map(|label| self.label(label))
    }

    /// The longest zone that the name is in.
    pub fn within<'c>(&self, config: &'c Prepared) -> Option<Within<'c>> {
        config.zones.iter().find_map(|apex| {
            let labels = self.labels_before(apex.name.as_wire())?;
            Some(Within { apex, labels })
        })
    }

    /// How many labels stand before `zone`, if the name is in it; `zone` is in lower case.
    pub fn labels_before(&self, zone: &[u8]) -> Option<usize> {
        let begin = self.length.checked_sub(zone.len())?;
        if self.lower[begin..self.length] != *zone {
            return None;
        }
        if begin + 1 == self.length {
            return Some(self.count);
        }
        let offsets = &self.offsets[..self.count];
        offsets.binary_search(&(begin as u8)).ok()
    }
}
