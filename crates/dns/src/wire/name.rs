//! Names on the wire: labels with their lengths before them, ended by an empty one; here never compressed.

use std::fmt;

use super::NAME_BYTES_MAX;

/// Length bytes of labels; the two highest bits mean a pointer or nothing that is known.
const LABEL_BYTES_MAX: u8 = 63;

/// Why text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Two dots in a row, or one at the beginning.
    #[error("a name has an empty label")]
    Empty,
    /// More than 63 bytes between dots.
    #[error("a label of a name has more than 63 bytes")]
    Label,
    /// More than 255 bytes.
    #[error("a name has more than 255 bytes")]
    Long,
    /// A backslash that does not begin `\.`, `\\` or three decimal digits.
    #[error("a name has a backslash that escapes nothing")]
    Escape,
}

/// A name of one's own, uncompressed, with the root's empty label at its end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// The root.
    pub fn root() -> Self {
        Name(Box::new([0]))
    }

    /// Reads text, with or without the last dot; case is kept. `\.` and `\ddd` are as in zone files.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let mut wire = Vec::with_capacity(text.len() + 2);
        if matches!(text, "" | ".") {
            return Ok(Name::root());
        }
        let mut start = 0;
        wire.push(0);
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'.' => {
                    close(&mut wire, start)?;
                    start = wire.len();
                    wire.push(0);
                }
                b'\\' => wire.push(escaped(&mut bytes)?),
                byte => wire.push(byte),
            }
        }
        // Without the last dot a label is still open; with it there is the room of the root's.
        if wire.len() > start + 1 {
            close(&mut wire, start)?;
            wire.push(0);
        }
        match wire.len() {
            0..=NAME_BYTES_MAX => Ok(Name(wire.into())),
            _ => Err(NameError::Long),
        }
    }

    /// Takes over bytes that are a whole name; `None` when they are not.
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        let whole = skip_name(bytes, 0)? == bytes.len();
        whole.then(|| Name(bytes.into()))
    }

    /// The bytes.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// The same name in lower case.
    pub fn lowered(&self) -> Self {
        Name(lower(&self.0).into())
    }
}

/// Writes the length of the label that began at `start`.
fn close(wire: &mut [u8], start: usize) -> Result<(), NameError> {
    match wire.len() - start - 1 {
        0 => Err(NameError::Empty),
        length @ 1..=63 => {
            wire[start] = length as u8;
            Ok(())
        }
        _ => Err(NameError::Label),
    }
}

fn escaped(bytes: &mut std::str::Bytes<'_>) -> Result<u8, NameError> {
    let digit = |byte: Option<u8>| {
        byte.filter(u8::is_ascii_digit)
            .map(|byte| u16::from(byte - b'0'))
    };
    let first = bytes.next().ok_or(NameError::Escape)?;
    let Some(hundreds) = digit(Some(first)) else {
        return Ok(first);
    };
    let tens = digit(bytes.next()).ok_or(NameError::Escape)?;
    let ones = digit(bytes.next()).ok_or(NameError::Escape)?;
    u8::try_from(hundreds * 100 + tens * 10 + ones).map_err(|_| NameError::Escape)
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_text(&self.0, f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_text(&self.0, f)
    }
}

/// Writes an uncompressed name as text, with its last dot.
fn write_text(wire: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if wire.len() <= 1 {
        return f.write_str(".");
    }
    for label in labels(wire) {
        for &byte in label {
            match byte {
                b'.' | b'\\' => write!(f, "\\{}", byte as char)?,
                b'!'..=b'~' => write!(f, "{}", byte as char)?,
                _ => write!(f, "\\{byte:03}")?,
            }
        }
        f.write_str(".")?;
    }
    Ok(())
}

/// The labels of an uncompressed name from left to right, without the root's. It ends early where bytes are no name.
pub fn labels(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = wire;
    std::iter::from_fn(move || {
        let (&length, after) = rest.split_first()?;
        if length == 0 || length > LABEL_BYTES_MAX {
            return None;
        }
        let (label, after) = after.split_at_checked(usize::from(length))?;
        rest = after;
        Some(label)
    })
}

/// Where an uncompressed name that begins at `at` ends; `None` when none begins there or it is too long.
pub fn skip_name(bytes: &[u8], at: usize) -> Option<usize> {
    let mut position = at;
    loop {
        let length = *bytes.get(position)?;
        if length > LABEL_BYTES_MAX {
            return None;
        }
        position += 1 + usize::from(length);
        if position - at > NAME_BYTES_MAX {
            return None;
        }
        if length == 0 {
            return (position <= bytes.len()).then_some(position);
        }
    }
}

/// Whether two names on the wire are the same; case does not matter (RFC 4343). Length bytes are below 64, so that
/// folding case leaves them alone.
pub fn eq_names(a: &[u8], b: &[u8]) -> bool {
    a.eq_ignore_ascii_case(b)
}

/// A copy in lower case.
pub fn lower(wire: &[u8]) -> Vec<u8> {
    wire.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_wire_are_the_same_name() {
        for (text, shown) in [
            ("web.ns.svc.Cluster.local", "web.ns.svc.Cluster.local."),
            ("web.", "web."),
            (".", "."),
            ("", "."),
            ("a\\.b.c", "a\\.b.c."),
            ("a\\000b", "a\\000b."),
        ] {
            let name = Name::parse(text).unwrap();
            assert_eq!(name.to_string(), shown);
            assert_eq!(Name::from_wire(name.as_wire()), Some(name));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        assert_eq!(Name::parse("a..b"), Err(NameError::Empty));
        assert_eq!(Name::parse(".a"), Err(NameError::Empty));
        assert_eq!(Name::parse(&"a".repeat(64)), Err(NameError::Label));
        assert_eq!(Name::parse(&"a.".repeat(128)), Err(NameError::Long));
        assert!(Name::parse(&"a.".repeat(127)).is_ok());
        assert_eq!(Name::parse("a\\2"), Err(NameError::Escape));
        assert_eq!(skip_name(&[3, b'a'], 0), None);
        assert_eq!(skip_name(&[0xc0, 12], 0), None);
        assert_eq!(skip_name(&[], 0), None);
    }
}
