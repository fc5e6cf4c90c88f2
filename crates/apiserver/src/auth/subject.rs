//! The subject of a client certificate (X.509, DER): common name = user, organizations = groups.
//!
//! TLS has verified the certificate before; this only finds two kinds of text in it (RFC 5280, section 4.1).

use super::Identity;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
const VERSION: u8 = 0xa0;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.4.10
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];

/// Who the certificate names; `None` if it has no common name or is malformed.
pub fn parse(certificate: &[u8]) -> Option<Identity> {
    let (_, certificate, _) = element(certificate)?;
    let (_, body, _) = element(certificate)?;
    let (tag, _, after_version) = element(body)?;
    // Version is optional; then come serial number, signature algorithm, issuer, validity, subject.
    let mut rest = if tag == VERSION { after_version } else { body };
    for _ in 0..4 {
        rest = element(rest)?.2;
    }
    let (tag, mut names, _) = element(rest)?;
    if tag != SEQUENCE {
        return None;
    }
    let (mut user, mut groups) = (None, Vec::new());
    while !names.is_empty() {
        let (tag, mut set, next) = element(names)?;
        names = next;
        if tag != SET {
            return None;
        }
        while !set.is_empty() {
            let (_, pair, next) = element(set)?;
            set = next;
            let (tag, id, value) = element(pair)?;
            let (_, text, _) = element(value)?;
            let text = || str::from_utf8(text).ok().map(str::to_owned);
            match id {
                _ if tag != OBJECT_ID => return None,
                COMMON_NAME => user = Some(text()?),
                ORGANIZATION => groups.push(text()?),
                _ => {}
            }
        }
    }
    Some(Identity {
        user: user?,
        groups,
    })
}

/// Tag, contents, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (digits, rest) = rest.split_at_checked(count)?;
        (
            digits
                .iter()
                .fold(0, |sum, digit| (sum << 8) | usize::from(*digit)),
            rest,
        )
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}
