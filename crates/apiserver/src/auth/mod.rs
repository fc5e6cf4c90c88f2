//! Who a client is: client certificates of the server's own authority, and bearer tokens.

mod authority;
mod kubeconfig;
mod subject;

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

pub use authority::{Authority, Credentials, Error, write_private};
pub use kubeconfig::kubeconfig;
pub use subject::parse as parse_subject;

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User name.
    pub user: String,
    /// Groups.
    pub groups: Vec<String>,
}

/// Tells who a client is.
#[derive(Default)]
pub struct Authenticator {
    /// By the hash of the token, so that finding one takes no longer the more of it is right.
    tokens: BTreeMap<[u8; 32], Identity>,
}

impl Authenticator {
    /// Knows these tokens; client certificates are checked by TLS.
    pub fn new(tokens: impl IntoIterator<Item = (String, Identity)>) -> Authenticator {
        Authenticator {
            tokens: tokens
                .into_iter()
                .map(|(token, who)| (hash(&token), who))
                .collect(),
        }
    }

    /// The identity of a client certificate that TLS has verified, or else of an `Authorization` header.
    pub fn identify(
        &self,
        certificate: Option<&Identity>,
        authorization: Option<&str>,
    ) -> Option<Identity> {
        if let Some(identity) = certificate {
            return Some(identity.clone());
        }
        let (scheme, token) = authorization?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        self.tokens.get(&hash(token.trim())).cloned()
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
