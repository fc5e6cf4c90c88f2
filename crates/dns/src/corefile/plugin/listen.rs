//! `bind`, `tls`, `reload`, `bufsize`: how a server block is reached, and how it changes.

use std::path::PathBuf;
use std::time::Duration;

use crate::corefile::Error;
use crate::corefile::args::{Args, body, duration, no_body, number, unknown};
use crate::corefile::lexer::Line;

/// `bind ADDRESS|INTERFACE… { except ADDRESS|INTERFACE… }`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bind {
    /// Addresses, or names of interfaces, whose addresses are meant.
    pub at: Vec<String>,
    /// Of these, the ones to leave out.
    pub except: Vec<String>,
}

/// `tls CERT KEY [CA]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// Certificates, PEM.
    pub cert: PathBuf,
    /// The key, PEM.
    pub key: PathBuf,
}

/// `reload [INTERVAL] [JITTER]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reload {
    /// How often the file is looked at.
    pub interval: Duration,
    /// By up to how much that varies.
    pub jitter: Duration,
}

/// What CoreDNS takes as the shortest interval.
const RELOAD_MIN: Duration = Duration::from_secs(2);

pub(super) fn bind(line: &Line) -> Result<Bind, Error> {
    let words = Args::of(line).need_rest("an address or an interface")?;
    let mut bind = Bind {
        at: words.iter().map(|word| word.text.clone()).collect(),
        except: Vec::new(),
    };
    for option in body(line) {
        match option.name().text.as_str() {
            "except" => {
                let words = Args::of(option).need_rest("an address or an interface")?;
                bind.except
                    .extend(words.iter().map(|word| word.text.clone()));
            }
            _ => return Err(unknown(option, line, &["except"])),
        }
    }
    Ok(bind)
}

pub(super) fn tls(line: &Line) -> Result<Tls, Error> {
    no_body(line)?;
    let mut args = Args::of(line);
    let cert = args.need("CERT and KEY")?.text.clone().into();
    let key = args.need("KEY after CERT")?.text.clone().into();
    args.end()?;
    Ok(Tls { cert, key })
}

pub(super) fn reload(line: &Line) -> Result<Reload, Error> {
    no_body(line)?;
    let mut args = Args::of(line);
    let mut reload = Reload {
        interval: Duration::from_secs(30),
        jitter: Duration::from_secs(15),
    };
    if let Some(word) = args.take() {
        reload.interval = duration(word)?.max(RELOAD_MIN);
        reload.jitter = reload.interval / 2;
    }
    if let Some(word) = args.take() {
        reload.jitter = duration(word)?.min(reload.interval / 2);
    }
    args.end()?;
    Ok(reload)
}

pub(super) fn bufsize(line: &Line) -> Result<u16, Error> {
    no_body(line)?;
    let mut args = Args::of(line);
    let size = args.take();
    args.end()?;
    size.map_or(Ok(1232), |word| {
        number(word, "size of a buffer", 512..=4096)
    })
}
