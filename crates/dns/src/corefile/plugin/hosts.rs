//! `hosts [FILE [ZONES…]] { … }`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::corefile::Error;
use crate::corefile::args::{
    Args, alone, body, duration, fallthrough, no_body, number, unknown, zones_or,
};
use crate::corefile::key::Zone;
use crate::corefile::lexer::Line;

/// Names of a file and of the Corefile itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Hosts {
    /// The file.
    pub file: PathBuf,
    /// Names below them are answered.
    pub zones: Vec<Zone>,
    /// Addresses and their names.
    pub inline: Vec<(IpAddr, Vec<Zone>)>,
    /// Seconds.
    pub ttl: u32,
    /// Whether addresses have names, too.
    pub reverse: bool,
    /// How often the file is looked at; 0: never again.
    pub reload: Duration,
    /// Names below these that are not here go on to the next plugin.
    pub fallthrough: Vec<Zone>,
}

const OPTIONS: [&str; 5] = [
    "ADDRESS NAME…",
    "ttl",
    "no_reverse",
    "reload",
    "fallthrough",
];

pub(super) fn hosts(line: &Line, block: &[Zone]) -> Result<Hosts, Error> {
    let mut args = Args::of(line);
    let mut hosts = Hosts {
        file: args.take().map_or("/etc/hosts", |word| &word.text).into(),
        zones: zones_or(args.rest(), block)?,
        inline: Vec::new(),
        ttl: 3600,
        reverse: true,
        reload: Duration::from_secs(5),
        fallthrough: Vec::new(),
    };
    for option in body(line) {
        read(&mut hosts, option, line)?;
        no_body(option)?;
    }
    Ok(hosts)
}

fn read(hosts: &mut Hosts, option: &Line, line: &Line) -> Result<(), Error> {
    let mut args = Args::of(option);
    match option.name().text.as_str() {
        "ttl" => hosts.ttl = number(args.need("seconds")?, "time to live in seconds", 1..=65535)?,
        "reload" => hosts.reload = duration(args.need("a time")?)?,
        "fallthrough" => {
            hosts.fallthrough = fallthrough(option)?;
            return Ok(());
        }
        "no_reverse" => {
            alone(option)?;
            hosts.reverse = false;
        }
        address => {
            let address: IpAddr = address
                .parse()
                .map_err(|_| unknown(option, line, &OPTIONS))?;
            let names = args.need_rest("a name")?.iter().map(|word| {
                let wrong = || word.wrong(format!("{:?} is no name", word.text));
                Zone::parse(&word.text).ok_or_else(wrong)
            });
            hosts
                .inline
                .push((address, names.collect::<Result<_, _>>()?));
        }
    }
    args.end()
}
