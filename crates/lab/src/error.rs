//! What can go wrong with a lab, as its user sees it.

use std::io;
use std::path::{Path, PathBuf};

/// A lab could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused something.
    #[error(transparent)]
    Kernel(#[from] portolan_kernel::Error),
    /// A file of the lab could not be used.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// "read", "write" …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The supervisor or a pod's shim did not answer as expected.
    #[error("{what}: {source}")]
    Conversation {
        /// What was asked.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The API refused or could not be reached.
    #[error("{what}: {}", told(error))]
    Api {
        /// What was asked.
        what: String,
        /// Why it failed.
        error: Box<kube::Error>,
    },
    /// The kubeconfig that the API server wrote can't be used.
    #[error(transparent)]
    Client(#[from] portolan_k8s::ClientError),
    /// The user asked for something that does not exist or can't be.
    #[error("{0}")]
    Refused(String),
}

/// The result of an operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failed access to a file of the lab.
    pub fn file(action: &'static str, path: &Path, source: io::Error) -> Error {
        Error::File {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    /// A failed request to the supervisor or a shim.
    pub fn conversation(what: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error::Conversation {
            what: what.into(),
            source: source.into(),
        }
    }

    /// A failed request to the API.
    pub fn api(what: impl Into<String>, error: kube::Error) -> Error {
        Error::Api {
            what: what.into(),
            error: Box::new(error),
        }
    }
}

/// What the API server says; of an answer with a Status its message, which is a sentence for people.
fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_the_api_is_told_in_its_own_words() {
        let message = "pods \"client\" not found";
        let status = kube::core::Status::failure(message, "NotFound").with_code(404);
        let error = Error::api("get the pod shop/client", kube::Error::Api(status.boxed()));
        assert_eq!(
            error.to_string(),
            format!("get the pod shop/client: {message}")
        );
        assert!(
            std::error::Error::source(&error).is_none(),
            "nothing is told twice"
        );
    }
}
