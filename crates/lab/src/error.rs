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
    #[error("{what}: {source}")]
    Api {
        /// What was asked.
        what: String,
        /// Why it failed.
        source: Box<kube::Error>,
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
    pub fn api(what: impl Into<String>, source: kube::Error) -> Error {
        Error::Api {
            what: what.into(),
            source: Box::new(source),
        }
    }
}
