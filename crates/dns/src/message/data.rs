//! What stands in the data of records, as far as names and addresses go.

use std::net::IpAddr;

use super::Record;
use crate::wire::{Name, rtype, skip_name};

/// Names in the data of a type: bytes before them, how many, bytes behind them at least.
pub(super) struct Layout {
    pub before: usize,
    pub names: usize,
    pub after: usize,
    /// Whether they may be compressed in what we write (RFC 3597, section 4: only those of RFC 1035).
    pub compress: bool,
}

/// The layout of the types whose names other servers compress; `None` for all others, whose data is only bytes.
pub(super) fn layout(rtype: u16) -> Option<Layout> {
    let of = |before, names, after, compress| {
        Some(Layout {
            before,
            names,
            after,
            compress,
        })
    };
    match rtype {
        // NS, MD, MF, CNAME, MB, MG, MR, PTR
        2..=5 | 7..=9 | 12 => of(0, 1, 0, true),
        rtype::SOA => of(0, 2, 20, true),
        // MINFO
        14 => of(0, 2, 0, true),
        rtype::MX => of(2, 1, 0, true),
        // RP
        17 => of(0, 2, 0, false),
        // AFSDB, RT, KX
        18 | 21 | 36 => of(2, 1, 0, false),
        rtype::SRV => of(6, 1, 0, false),
        // DNAME
        39 => of(0, 1, 0, false),
        _ => None,
    }
}

/// The first name in the data: the target of a CNAME, PTR, SRV, MX or NS.
pub fn name_in(record: &Record) -> Option<Name> {
    let before = layout(record.rtype)?.before;
    let end = skip_name(&record.data, before)?;
    Name::from_wire(&record.data[before..end])
}

/// The same record with another name in its data.
pub fn with_name(record: &Record, name: &Name) -> Option<Record> {
    let before = layout(record.rtype)?.before;
    let end = skip_name(&record.data, before)?;
    let data = [&record.data[..before], name.as_wire(), &record.data[end..]].concat();
    Some(Record {
        data: data.into(),
        ..record.clone()
    })
}

/// The address of an A or AAAA record.
pub fn address(record: &Record) -> Option<IpAddr> {
    match record.rtype {
        rtype::A => Some(<[u8; 4]>::try_from(&*record.data).ok()?.into()),
        rtype::AAAA => Some(<[u8; 16]>::try_from(&*record.data).ok()?.into()),
        _ => None,
    }
}

/// How long a denial may be kept by the SOA record that came with it (RFC 2308, section 5).
pub fn soa_minimum(record: &Record) -> Option<u32> {
    if record.rtype != rtype::SOA {
        return None;
    }
    let minimum = record.data.last_chunk::<4>()?;
    Some(record.ttl.min(u32::from_be_bytes(*minimum)))
}
