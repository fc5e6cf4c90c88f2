//! Names and passwords (RFC 7617).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Request, Response, StatusCode};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::super::answer;
use super::super::body::Body;
use crate::policy::{Login, credentials};

/// Hashes that are computed at one time: bcrypt takes a whole processor for tens of milliseconds, and requests that need
/// none must go on. Further logins wait.
const HASHES_AT_ONCE_MAX: usize = 2;

/// Logins that are remembered, so that their hashes need not be computed for each request; when there are more, all are
/// forgotten. Each takes some 50 bytes.
const LOGINS_MAX: usize = 16_384;

/// Logins that were right: what a digest is made of never leaves the process.
#[derive(Debug)]
pub(super) struct Logins {
    right: Mutex<HashMap<[u8; 32], ()>>,
    room: Semaphore,
    /// Makes digests worthless elsewhere.
    secret: u128,
}

impl Default for Logins {
    fn default() -> Self {
        Logins {
            right: Mutex::default(),
            room: Semaphore::new(HASHES_AT_ONCE_MAX),
            secret: fastrand::u128(..),
        }
    }
}

/// Lets a request on whose name and password are right.
pub(super) async fn check(
    logins: &Logins,
    login: &Login,
    request: &Request<Body>,
) -> Result<(), Response<Body>> {
    let given = credentials(request.headers());
    let Some((name, password)) = given else {
        return Err(refusal(login));
    };
    let Some(hash) = login.users.hash(&name) else {
        return Err(refusal(login));
    };
    let digest = logins.digest(&[hash.as_bytes(), name.as_bytes(), password.as_bytes()]);
    if logins
        .right
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .contains_key(&digest)
    {
        return Ok(());
    }
    let Ok(_permit) = logins.room.acquire().await else {
        return Err(refusal(login));
    };
    let users = Arc::clone(&login.users);
    let computed = tokio::task::spawn_blocking(move || users.admit(&name, &password)).await;
    if !computed.unwrap_or(false) {
        return Err(refusal(login));
    }
    let mut right = logins.right.lock().unwrap_or_else(PoisonError::into_inner);
    if right.len() >= LOGINS_MAX {
        right.clear();
    }
    right.insert(digest, ());
    Ok(())
}

impl Logins {
    fn digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.secret.to_ne_bytes());
        for part in parts {
            digest.update(part.len().to_ne_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

fn refusal(login: &Login) -> Response<Body> {
    let mut answer = answer::plain(StatusCode::UNAUTHORIZED);
    let realm = login.realm.replace(['"', '\\'], "");
    let value = HeaderValue::from_str(&format!("Basic realm=\"{realm}\", charset=\"UTF-8\""));
    let value = value.unwrap_or(HeaderValue::from_static("Basic realm=\"\""));
    answer.headers_mut().insert(WWW_AUTHENTICATE, value);
    answer
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;
    use crate::policy::Users;

    fn asked(password: usize) -> Request<Body> {
        use base64::Engine;
        let text =
            base64::engine::general_purpose::STANDARD.encode(format!("user{password}:secret"));
        let request = Request::builder().header("authorization", format!("Basic {text}"));
        request.body(Body::Own(Full::default())).unwrap()
    }

    #[tokio::test]
    async fn right_logins_are_remembered_and_not_too_many() {
        let file: String = (0..3)
            .map(|n| format!("user{n}:{{SHA}}5en6G6MezRroT3XKqkdPOmY/BfQ=\n"))
            .collect();
        let login = Login {
            realm: "x\"y".into(),
            users: Arc::new(Users::read(&file).0),
        };
        let logins = Logins::default();
        assert!(check(&logins, &login, &asked(0)).await.is_ok());
        assert!(check(&logins, &login, &asked(0)).await.is_ok());
        assert_eq!(logins.right.lock().unwrap().len(), 1);
        let refused = check(&logins, &login, &asked(7)).await.unwrap_err();
        assert_eq!(
            refused.headers()[WWW_AUTHENTICATE],
            "Basic realm=\"xy\", charset=\"UTF-8\""
        );
        let mut number = 0_u64;
        logins.right.lock().unwrap().extend(
            std::iter::from_fn(|| {
                number += 1;
                Some((logins.digest(&[&number.to_ne_bytes()]), ()))
            })
            .take(LOGINS_MAX - 1),
        );
        assert!(check(&logins, &login, &asked(1)).await.is_ok());
        assert_eq!(
            logins.right.lock().unwrap().len(),
            1,
            "all others are forgotten"
        );
    }

    #[tokio::test]
    async fn hashes_wait_for_each_other() {
        let file = "user0:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n";
        let login = Login {
            realm: "x".into(),
            users: Arc::new(Users::read(file).0),
        };
        let logins = Logins::default();
        let others = logins.room.acquire_many(HASHES_AT_ONCE_MAX as u32);
        let others = others.await.unwrap();
        let request = asked(0);
        let mut waiting = std::pin::pin!(check(&logins, &login, &request));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(others);
        assert!(waiting.await.is_ok());
    }
}
