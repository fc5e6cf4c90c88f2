//! Names and passwords that let in (RFC 7617), and the hashes that `htpasswd` writes: bcrypt, MD5 of Apache, and SHA-1.
//!
//! Checking a hash of bcrypt takes tens of milliseconds by design: the server does it on another thread.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use md5::Md5;
use sha1::{Digest, Sha1};

/// Letters of the base 64 of crypt(3), which is not that of RFC 4648.
const CRYPT64: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Most work of a bcrypt hash that is accepted, as a power of two: 15 takes two seconds of a processor, and whoever
/// writes the Secret must not stop the gateway with one login.
const BCRYPT_COST_MAX: u32 = 15;

/// Who is let in by name and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// What browsers show.
    pub realm: String,
    /// Everybody.
    pub users: Arc<Users>,
}

/// Users and the hashes of their passwords. They are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Users(BTreeMap<String, Hash>);

#[derive(Clone, PartialEq, Eq)]
enum Hash {
    Bcrypt(String),
    Apr1 { salt: String, digest: String },
    Sha1([u8; 20]),
}

/// Why a line of a password file is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// No colon between name and hash.
    #[error("line {0} is not NAME:HASH")]
    Line(usize),
    /// A hash of another kind, or a broken one.
    #[error(
        "the hash of line {0} is none of bcrypt ($2y$), apr1 ($apr1$) and {{SHA}}; make it with htpasswd -B"
    )]
    Kind(usize),
    /// A hash that takes too long.
    #[error(
        "the hash of line {0} has a cost above {BCRYPT_COST_MAX}, which takes seconds for each login"
    )]
    Cost(usize),
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.0.len())
    }
}

impl Users {
    /// Reads what `htpasswd` writes. A line that is of no use is told, and lets nobody in.
    pub fn read(text: &str) -> (Users, Vec<HashError>) {
        let mut users = BTreeMap::new();
        let mut errors = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = index + 1;
            let Some((name, hash)) = line.split_once(':') else {
                errors.push(HashError::Line(number));
                continue;
            };
            match hash_of(hash, number) {
                Ok(hash) => drop(users.insert(name.to_owned(), hash)),
                Err(error) => errors.push(error),
            }
        }
        (Users(users), errors)
    }

    /// What a login of that user depends on; `None` for nobody.
    pub fn hash(&self, name: &str) -> Option<String> {
        Some(match self.0.get(name)? {
            Hash::Bcrypt(hash) => hash.clone(),
            Hash::Apr1 { salt, digest } => format!("{salt}${digest}"),
            Hash::Sha1(digest) => STANDARD.encode(digest),
        })
    }

    /// Whether nobody is let in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is the password of that user. It may take a tenth of a second and longer.
    pub fn admit(&self, name: &str, password: &str) -> bool {
        match self.0.get(name) {
            Some(Hash::Bcrypt(hash)) => bcrypt::verify(password, hash).unwrap_or(false),
            Some(Hash::Apr1 { salt, digest }) => {
                same(apr1(password, salt).as_bytes(), digest.as_bytes())
            }
            Some(Hash::Sha1(digest)) => same(&Sha1::digest(password), digest),
            None => false,
        }
    }
}

fn hash_of(text: &str, line: usize) -> Result<Hash, HashError> {
    let text = text.split(':').next().unwrap_or_default();
    if let Some(rest) = text.strip_prefix("$apr1$") {
        let (salt, digest) = rest.split_once('$').ok_or(HashError::Kind(line))?;
        let fine = digest.len() == 22 && salt.len() <= 8;
        let hash = Hash::Apr1 {
            salt: salt.to_owned(),
            digest: digest.to_owned(),
        };
        return fine.then_some(hash).ok_or(HashError::Kind(line));
    }
    if let Some(rest) = text.strip_prefix("{SHA}") {
        let digest = STANDARD.decode(rest).ok().and_then(|d| d.try_into().ok());
        return digest.map(Hash::Sha1).ok_or(HashError::Kind(line));
    }
    let parts: bcrypt::HashParts = text.parse().map_err(|_| HashError::Kind(line))?;
    match parts.get_cost() {
        0..=BCRYPT_COST_MAX => Ok(Hash::Bcrypt(text.to_owned())),
        _ => Err(HashError::Cost(line)),
    }
}

/// Compares in a time that does not depend on where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

/// Name and password of a request; `None` when it has none, or they are not written as RFC 7617 says.
pub fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    let decoded = scheme
        .eq_ignore_ascii_case("basic")
        .then(|| STANDARD.decode(rest.trim()).ok())??;
    let text = String::from_utf8(decoded).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

/// Apache's variant of the MD5 of crypt(3): `apr_md5_encode`.
fn apr1(password: &str, salt: &str) -> String {
    let (password, salt) = (password.as_bytes(), salt.as_bytes());
    let mut inner = Md5::new();
    inner.update(password);
    inner.update(salt);
    inner.update(password);
    let inner = inner.finalize();
    let mut outer = Md5::new();
    outer.update(password);
    outer.update(b"$apr1$");
    outer.update(salt);
    for chunk in password.chunks(16) {
        outer.update(&inner[..chunk.len()]);
    }
    let mut bits = password.len();
    while bits > 0 {
        outer.update(match bits & 1 {
            1 => &[0][..],
            _ => password.get(..1).unwrap_or_default(),
        });
        bits >>= 1;
    }
    let mut digest = outer.finalize();
    for round in 0..1000 {
        let mut next = Md5::new();
        let (first, last) = match round % 2 {
            1 => (password, &digest[..]),
            _ => (&digest[..], password),
        };
        next.update(first);
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(last);
        digest = next.finalize();
    }
    encoded(&digest)
}

/// The 16 bytes in the order and the letters of crypt(3).
fn encoded(digest: &[u8]) -> String {
    let groups = [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)];
    let mut text = String::with_capacity(22);
    let mut put = |mut value: u32, letters: usize| {
        for _ in 0..letters {
            text.push(char::from(CRYPT64[(value & 63) as usize]));
            value >>= 6;
        }
    };
    for (a, b, c) in groups {
        let value = u32::from(digest[a]) << 16 | u32::from(digest[b]) << 8 | u32::from(digest[c]);
        put(value, 4);
    }
    put(u32::from(digest[11]), 2);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `openssl passwd -apr1` and htpasswd write them; the password is `secret` everywhere.
    const FILE: &str = "# users\n\
        apr:$apr1$saltsalt$LrttParrLPdxvgutaSXWJ0\n\
        sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n\
        none\n\
        des:rl.3StKT.4T8M\n";

    #[test]
    fn every_kind_of_hash_lets_its_password_in() {
        let bcrypt = bcrypt::hash("secret", 4).unwrap();
        let (users, errors) = Users::read(&format!(
            "{FILE}bc:{bcrypt}\nslow:{}\n",
            bcrypt.replace("$04$", "$31$")
        ));
        assert_eq!(
            errors,
            [HashError::Line(4), HashError::Kind(5), HashError::Cost(7)]
        );
        for name in ["sha", "bc", "apr"] {
            assert!(users.admit(name, "secret"), "{name}");
            assert!(
                !users.admit(name, "Secret") && !users.admit(name, ""),
                "{name}"
            );
        }
        for name in ["none", "des", "slow", ""] {
            assert!(!users.admit(name, "secret"), "{name}");
        }
        assert!(!users.is_empty() && format!("{users:?}") == "Users(3)");
    }

    #[test]
    fn credentials_are_read() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            credentials(&headers)
        };
        assert_eq!(of("Basic YW5uOmE6Yg=="), Some(("ann".into(), "a:b".into())));
        assert_eq!(of("basic YW5uOg=="), Some(("ann".into(), String::new())));
        for wrong in ["Bearer YW5uOg==", "Basic", "Basic ???", "Basic YW5u"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!(credentials(&HeaderMap::new()), None);
    }
}
