//! What the kernel refused, in its own words.

use std::io;
use std::path::{Path, PathBuf};

/// An operation that the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{what}: {source}")]
    Call {
        /// What was being done, with its arguments.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A netlink request was refused.
    #[error("{request}: {source}{}", hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
    Netlink {
        /// What was asked for.
        request: String,
        /// The error number of the answer.
        source: io::Error,
        /// The kernel's explanation (extended acknowledgement), if it sent one.
        hint: Option<String>,
    },
    /// A file under /proc, /sys or a mount point could not be read or written.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// "read", "write", "open", "mount on" …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel answered something that we can't read.
    #[error("{0}")]
    Protocol(String),
}

/// The result of an operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failed call, named by what it was meant to do.
    pub fn call(what: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error::Call {
            what: what.into(),
            source: source.into(),
        }
    }

    /// A failed access to a file.
    pub fn file(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Error {
        Error::File {
            action,
            path: path.to_path_buf(),
            source: source.into(),
        }
    }

    /// The kernel's error number, if it gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Call { source, .. }
            | Error::Netlink { source, .. }
            | Error::File { source, .. } => source.raw_os_error(),
            Error::Protocol(_) => None,
        }
    }
}
