//! Paths: how they are compared, and which ones no request may have.
//!
//! A path is compared after the syntax-based normalisation of RFC 3986 section 6.2.2, as far as it cannot change what
//! a backend makes of it: `%61` is `a`, `%2f` is `%2F`. What backends and gateways are known to understand in
//! different ways is refused: a path that goes upwards would get past the rules that were made for where it ends.
//! The backend gets the path as it was sent.

use std::borrow::Cow;
use std::fmt;

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// It does not begin with `/`.
    Relative,
    /// A `%` is not followed by two hexadecimal digits.
    Percent,
    /// It has a character that no path has: a control character, `\`, `#`, `?`, a blank; or `%00`, which ends strings.
    Character,
    /// An element is `.` or `..`.
    Dots,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PathError::Relative => "it does not begin with /",
            PathError::Percent => "a % is not followed by two hexadecimal digits",
            PathError::Character => "it has a character that no path may have",
            PathError::Dots => "one of its elements is . or ..",
        })
    }
}

/// The path as it is compared; it is never longer than `path`.
pub fn normalize(path: &str) -> Result<Cow<'_, str>, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::Relative);
    }
    let forbidden = |b: u8| b <= b' ' || matches!(b, 0x7f | b'\\' | b'#' | b'?');
    if path.bytes().any(forbidden) {
        return Err(PathError::Character);
    }
    let path = match path.contains('%') {
        true => Cow::Owned(decoded(path)?),
        false => Cow::Borrowed(path),
    };
    match climbs(&path) {
        true => Err(PathError::Dots),
        false => Ok(path),
    }
}

/// The path without elements `.` and `..`, and with one slash where there are several, as nginx has it before it looks
/// for a location. `None` when nothing is to be done; an error when it leads above its root.
pub(crate) fn resolved(path: &str) -> Result<Option<String>, PathError> {
    let decoded = match path.contains('%') {
        true => Cow::Owned(decoded(path)?),
        false => Cow::Borrowed(path),
    };
    let inner = decoded.strip_prefix('/').ok_or(PathError::Relative)?;
    let is_odd = |element: &str| matches!(element, "" | "." | "..");
    let body = inner.strip_suffix('/').unwrap_or(inner);
    if inner.is_empty() || !body.split('/').any(is_odd) {
        return Ok(None);
    }
    let mut kept: Vec<&str> = Vec::new();
    for element in inner.split('/') {
        match element {
            "" | "." => {}
            ".." => drop(kept.pop().ok_or(PathError::Dots)?),
            _ => kept.push(element),
        }
    }
    let last = inner.rsplit('/').next().unwrap_or_default();
    let end = match is_odd(last) && !kept.is_empty() {
        true => "/",
        false => "",
    };
    Ok(Some(format!("/{}{end}", kept.join("/"))))
}

/// Decodes what needs no encoding (RFC 3986 section 2.3), and writes other hexadecimal digits as capitals.
fn decoded(path: &str) -> Result<String, PathError> {
    let mut parts = path.split('%');
    let mut all = String::with_capacity(path.len());
    all.extend(parts.next());
    for part in parts {
        let digits = part.get(..2).ok_or(PathError::Percent)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(PathError::Percent);
        }
        let byte = u8::from_str_radix(digits, 16).map_err(|_| PathError::Percent)?;
        match byte {
            0 => return Err(PathError::Character),
            b'-' | b'.' | b'_' | b'~' => all.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => all.push(char::from(byte)),
            _ => {
                all.push('%');
                all.push_str(&digits.to_ascii_uppercase());
            }
        }
        all.push_str(&part[2..]);
    }
    Ok(all)
}

/// Whether an element is `.` or `..`, also between slashes and backslashes that are encoded: many backends decode
/// those first.
fn climbs(path: &str) -> bool {
    let climbing = |element: &str| matches!(element, "." | "..");
    if !path.contains("%2F") && !path.contains("%5C") {
        return path.split('/').any(climbing);
    }
    path.replace("%2F", "/")
        .replace("%5C", "/")
        .split('/')
        .any(climbing)
}

/// The elements of a normalised path. A slash at its end does not count: `/a/b/` has two elements, `/` has none.
pub(crate) fn elements(path: &str) -> impl Iterator<Item = &str> {
    let inner = path.strip_prefix('/').unwrap_or(path);
    let all = (path != "/").then(|| inner.strip_suffix('/').unwrap_or(inner).split('/'));
    all.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_compared_normalised() {
        let same = [
            ("/", "/"),
            ("/%61dmin", "/admin"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2Fb/%7euser", "/a%2Fb/~user"),
            ("//a//", "//a//"),
            ("/a.b/..c/...", "/a.b/..c/..."),
            ("/\u{fc}", "/\u{fc}"),
        ];
        for (given, path) in same {
            assert_eq!(normalize(given).as_deref(), Ok(path), "{given}");
        }
    }

    #[test]
    fn paths_that_are_understood_in_several_ways_are_refused() {
        let wrong = [
            ("", PathError::Relative),
            ("a", PathError::Relative),
            ("*", PathError::Relative),
            ("/%", PathError::Percent),
            ("/%4", PathError::Percent),
            ("/%zz", PathError::Percent),
            ("/%+1", PathError::Percent),
            ("/%\u{fc}", PathError::Percent),
            ("/%00", PathError::Character),
            ("/a\\b", PathError::Character),
            ("/a b", PathError::Character),
            ("/a#b", PathError::Character),
            ("/a\u{7f}", PathError::Character),
            ("/..", PathError::Dots),
            ("/a/../b", PathError::Dots),
            ("/a/./b", PathError::Dots),
            ("/a/%2e%2E/b", PathError::Dots),
            ("/a/..%2Fb", PathError::Dots),
            ("/a%5c..%5cb", PathError::Dots),
        ];
        for (given, error) in wrong {
            assert_eq!(normalize(given), Err(error), "{given}");
        }
    }

    #[test]
    fn a_slash_at_the_end_is_no_element() {
        let of = |path| elements(path).collect::<Vec<_>>();
        assert_eq!(of("/"), Vec::<&str>::new());
        assert_eq!(of("/a/b"), ["a", "b"]);
        assert_eq!(of("/a/b/"), ["a", "b"]);
        assert_eq!(of("/a//b"), ["a", "", "b"]);
        assert_eq!(of("//"), [""]);
    }

    #[test]
    fn odd_elements_are_resolved() {
        let cases = [
            ("/a//b", "/a/b"),
            ("//a", "/a"),
            ("/a/./b/../c", "/a/c"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/%2e%2e/b/", "/b/"),
            ("/a//", "/a/"),
        ];
        for (path, expected) in cases {
            assert_eq!(resolved(path), Ok(Some(expected.into())), "{path}");
        }
        for fine in ["/", "/a", "/a/", "/a/b%2Fc", "/a.b/..c"] {
            assert_eq!(resolved(fine), Ok(None), "{fine}");
        }
        for above in ["/..", "/a/../.."] {
            assert_eq!(resolved(above), Err(PathError::Dots), "{above}");
        }
    }
}
