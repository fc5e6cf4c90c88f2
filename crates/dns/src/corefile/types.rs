//! Names of types, classes and response codes of DNS, as people write them.

/// Types by name: the registry's numbers (RFC 6895) that people use.
#[rustfmt::skip]
const TYPES: [(&str, u16); 43] = [
    ("A", 1), ("NS", 2), ("CNAME", 5), ("SOA", 6), ("NULL", 10), ("PTR", 12), ("HINFO", 13), ("MX", 15), ("TXT", 16),
    ("RP", 17), ("AFSDB", 18), ("SIG", 24), ("KEY", 25), ("AAAA", 28), ("LOC", 29), ("SRV", 33), ("NAPTR", 35),
    ("KX", 36), ("CERT", 37), ("DNAME", 39), ("OPT", 41), ("APL", 42), ("DS", 43), ("SSHFP", 44), ("IPSECKEY", 45),
    ("RRSIG", 46), ("NSEC", 47), ("DNSKEY", 48), ("DHCID", 49), ("NSEC3", 50), ("NSEC3PARAM", 51), ("TLSA", 52),
    ("SMIMEA", 53), ("CDS", 59), ("CDNSKEY", 60), ("OPENPGPKEY", 61), ("SVCB", 64), ("HTTPS", 65), ("SPF", 99),
    ("IXFR", 251), ("AXFR", 252), ("ANY", 255), ("CAA", 257),
];

/// Response codes by name (RFC 6895).
#[rustfmt::skip]
const CODES: [(&str, u16); 13] = [
    ("NOERROR", 0), ("FORMERR", 1), ("SERVFAIL", 2), ("NXDOMAIN", 3), ("NOTIMP", 4), ("REFUSED", 5), ("YXDOMAIN", 6),
    ("YXRRSET", 7), ("NXRRSET", 8), ("NOTAUTH", 9), ("NOTZONE", 10), ("BADVERS", 16), ("BADCOOKIE", 23),
];

/// The number of a type: its name in any case, or `TYPE123` (RFC 3597).
pub fn type_of(name: &str) -> Option<u16> {
    let name = name.to_ascii_uppercase();
    let known = TYPES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number);
    known.or_else(|| name.strip_prefix("TYPE")?.parse().ok())
}

/// The name of a type.
pub fn type_name(number: u16) -> String {
    let known = TYPES.iter().find(|(_, known)| *known == number);
    known.map_or_else(|| format!("TYPE{number}"), |(name, _)| (*name).to_string())
}

/// The number of a class.
pub fn class_of(name: &str) -> Option<u16> {
    match name.to_ascii_uppercase().as_str() {
        "IN" => Some(1),
        "CH" => Some(3),
        "HS" => Some(4),
        "ANY" => Some(255),
        other => other.strip_prefix("CLASS")?.parse().ok(),
    }
}

/// The number of a response code.
pub fn code_of(name: &str) -> Option<u16> {
    let name = name.to_ascii_uppercase();
    let known = CODES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number);
    known.or_else(|| name.parse().ok().filter(|code| *code < 4096))
}

/// The name of a response code.
pub fn code_name(number: u16) -> String {
    let known = CODES.iter().find(|(_, known)| *known == number);
    known.map_or_else(|| format!("RCODE{number}"), |(name, _)| (*name).to_string())
}
