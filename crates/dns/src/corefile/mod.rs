//! Corefiles: what people have written for CoreDNS, read into values.
//!
//! [`parse`] is pure: files and variables come through [`Sources`]. It reads everything that the plugins below
//! [`plugin`] know, and nothing else: what it does not know is an error with its place and with what is possible, so
//! that no line of a file is silently without effect. What the values do is for the chain to say.

mod args;
mod import;
mod key;
mod lexer;
pub mod plugin;
#[cfg(test)]
mod tests;
pub mod types;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

pub use import::IMPORTS_MAX;
pub use key::{Key, Scheme, Zone};
pub use lexer::{DEPTH_MAX, FILE_MAX, Place, WORDS_MAX};
pub use plugin::Plugins;

use lexer::{Line, Word};

/// Server blocks of one file: a thousand zones with settings of their own are more than anybody keeps by hand.
const BLOCKS_MAX: usize = 1_000;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {words}")]
pub struct Error {
    /// Where.
    pub place: Place,
    /// What, and what is possible.
    pub words: String,
}

impl Error {
    fn new(place: Place, words: impl Into<String>) -> Self {
        let words = words.into();
        Error { place, words }
    }
}

/// Where the parser gets what is not in the text.
pub trait Sources {
    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// Names and texts of the files that match a pattern, which stands in the file `from`.
    fn import(&self, pattern: &str, from: &str) -> Result<Vec<(String, String)>, String>;
}

/// Everything that a Corefile says.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// In the order of the file.
    pub blocks: Vec<Block>,
}

/// One server block.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// At least one.
    pub keys: Vec<Key>,
    /// What it does with queries.
    pub plugins: Plugins,
    /// Where it stands.
    pub place: Place,
}

/// Where a plugin listens for HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listen {
    /// `None` for every address.
    pub host: Option<IpAddr>,
    /// 0 lets the kernel choose.
    pub port: u16,
}

impl Listen {
    const fn at(host: Option<IpAddr>, port: u16) -> Self {
        Listen { host, port }
    }

    /// As a socket's address; every address is that of IPv6, which takes IPv4 too.
    pub fn address(self) -> SocketAddr {
        let any = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);
        SocketAddr::new(self.host.unwrap_or(any), self.port)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Some(host) => SocketAddr::new(host, self.port).fmt(f),
            None => write!(f, ":{}", self.port),
        }
    }
}

/// Reads a Corefile; `port` is that of keys which name none, usually 53.
pub fn parse(file: &str, text: &str, port: u16, sources: &impl Sources) -> Result<Config, Error> {
    let lines = import::expand(lexer::lines(file, text, sources)?, sources)?;
    let mut blocks = Vec::new();
    let mut rest = lines.as_slice();
    while !rest.is_empty() {
        let (words, body, after) = head(rest)?;
        let block = block(&words, body, port)?;
        duplicate(&blocks, &block)?;
        blocks.push(block);
        if blocks.len() > BLOCKS_MAX {
            return Err(words[0].wrong(format!("more than {BLOCKS_MAX} server blocks")));
        }
        rest = after;
    }
    Ok(Config { blocks })
}

/// The keys of the next block, its body, and what comes after; a comma continues keys on the next line. A file whose
/// first keys open no brace is one block.
#[expect(
    clippy::type_complexity,
    reason = "three parts of one slice, taken apart by the only caller"
)]
fn head(lines: &[Line]) -> Result<(Vec<&Word>, &[Line], &[Line]), Error> {
    let mut words = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        words.extend(line.words.iter().filter(|word| !word.text.is_empty()));
        if let Some(body) = &line.body {
            return Ok((words, body, &lines[index + 1..]));
        }
        if !line
            .words
            .last()
            .is_some_and(|last| last.text.ends_with(','))
        {
            let rest = &lines[index + 1..];
            if let Some(second) = rest.iter().find(|line| server_like(line)) {
                let words = "a server block opens here, but the one above has no braces";
                return Err(second.name().wrong(words));
            }
            return Ok((words, rest, &[]));
        }
    }
    let last = &lines[lines.len() - 1];
    Err(last.name().wrong("another key should follow the comma"))
}

/// A line with a body that is no plugin: most likely a server block.
fn server_like(line: &Line) -> bool {
    let name = &line.name().text;
    line.body.is_some() && name.contains(['.', ':', '/']) && !plugin::is_known(name)
}

fn block(words: &[&Word], body: &[Line], port: u16) -> Result<Block, Error> {
    let mut keys = Vec::new();
    for word in words {
        let bare = Word {
            text: word.text.trim_end_matches(',').to_string(),
            place: word.place.clone(),
        };
        if let Some(known) = plugin::is_known(&bare.text).then_some(&bare) {
            let words = format!(
                "{} is a plugin; it belongs into a server block, such as . {{ … }}",
                known.text
            );
            return Err(known.wrong(words));
        }
        keys.extend(key::keys(&bare, port)?);
    }
    let Some(first) = words.first().filter(|_| !keys.is_empty()) else {
        let place = body.first().map(|line| line.name().place.clone());
        let place = place.unwrap_or(Place {
            file: "Corefile".into(),
            line: 1,
            column: 1,
        });
        return Err(Error::new(
            place,
            "a server block needs a key, such as . or example.org:53",
        ));
    };
    let zones: Vec<Zone> = keys.iter().map(|key| key.zone.clone()).collect();
    let plugins = plugin::read(body, &zones)?;
    let place = first.place.clone();
    Ok(Block {
        keys,
        plugins,
        place,
    })
}

/// A key may stand once, but at different addresses.
fn duplicate(blocks: &[Block], new: &Block) -> Result<(), Error> {
    for old in blocks
        .iter()
        .filter(|old| old.plugins.bind == new.plugins.bind)
    {
        if let Some(key) = new.keys.iter().find(|key| old.keys.contains(key)) {
            let (scheme, zone, port) = (key.scheme.name(), &key.zone, key.port);
            let words = format!(
                "{scheme}://{zone}:{port} is served by the block at {} already",
                old.place
            );
            return Err(Error::new(new.place.clone(), words));
        }
    }
    Ok(())
}
