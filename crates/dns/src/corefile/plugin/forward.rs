//! `forward FROM TO… { … }`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::corefile::Error;
use crate::corefile::args::{
    Args, alone, body, duration, no_body, none_of, number, unknown, zone_list,
};
use crate::corefile::key::Zone;
use crate::corefile::lexer::{Line, Word};
use crate::corefile::types::code_of;

/// Servers of one forward, as in CoreDNS; files of servers are cut there too.
pub const UPSTREAMS_MAX: usize = 15;
/// Most queries at a time that a file can allow.
const CONCURRENT_MAX: usize = 1 << 20;

/// Where queries for one zone go.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// Queries for names below it.
    pub from: Zone,
    /// But not for names below these.
    pub except: Vec<Zone>,
    /// At least one.
    pub to: Vec<To>,
    /// In which order servers are asked.
    pub policy: Order,
    /// Queries go over TCP, also to servers that take UDP.
    pub force_tcp: bool,
    /// Queries go over UDP, also when they came over TCP.
    pub prefer_udp: bool,
    /// For how long an idle connection is kept.
    pub expire: Duration,
    /// Checks in a row that must fail until a server is down; 0: never.
    pub max_fails: u32,
    /// Servers that are tried for one query; 0: until the deadline.
    pub attempts_max: u32,
    /// Queries at a time; more are refused. 0: [`CONCURRENT_MAX`].
    pub concurrent_max: usize,
    /// How servers that have failed are looked at.
    pub check: Check,
    /// For `tls://` servers.
    pub tls: ClientTls,
    /// With all servers down: SERVFAIL at once, in place of a try.
    pub fail_fast: bool,
    /// Response codes after which the next `forward` of the block is asked.
    pub next: Vec<u16>,
    /// Also after NOERROR without records.
    pub next_on_nodata: bool,
    /// Response codes after which the next server is asked.
    pub failover: Vec<u16>,
    /// Queries leave from here.
    pub source: Option<IpAddr>,
}

/// One server, or a file that names servers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// Over UDP, and TCP.
    Dns(SocketAddr),
    /// Over TLS, with the name that its certificate has, when one is given.
    Tls(SocketAddr, Option<String>),
    /// Over HTTPS: the whole URL.
    Https(String),
    /// `nameserver` lines of a resolv.conf.
    File(PathBuf),
}

/// In which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Any.
    Random,
    /// Each in turn.
    RoundRobin,
    /// The first that is well.
    Sequential,
    /// Two at a time, the first answer wins; ours.
    Parallel,
}

/// How servers are looked at: `health_check DURATION [no_rec] [domain NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// How often; 0 turns checks off.
    pub period: Duration,
    /// Whether recursion is asked for.
    pub recursion: bool,
    /// The name whose servers are asked for.
    pub domain: Zone,
}

/// `tls [CERT KEY] [CA]` and `tls_servername NAME`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientTls {
    /// Shown to the server: certificates and key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Who signs the server's certificate, PEM; else those whom the machine trusts.
    pub ca: Option<PathBuf>,
    /// The name in the server's certificate.
    pub name: Option<String>,
}

const OPTIONS: [&str; 17] = [
    "except",
    "force_tcp",
    "prefer_udp",
    "expire",
    "max_fails",
    "max_connect_attempts",
    "max_concurrent",
    "tls",
    "tls_servername",
    "policy",
    "health_check",
    "next",
    "next_on_nodata",
    "failover",
    "failfast_all_unhealthy_upstreams",
    "source_address",
    "max_idle_conns",
];

pub(super) fn forward(line: &Line) -> Result<Forward, Error> {
    let mut args = Args::of(line);
    let from = args.need("FROM, such as .")?;
    let zones = zone_list(std::slice::from_ref(from))?;
    let [from] = <[Zone; 1]>::try_from(zones).map_err(|zones| {
        from.wrong(format!(
            "{:?} are {} zones; forward takes one",
            from.text,
            zones.len()
        ))
    })?;
    let words = args.need_rest("a server, such as 192.168.0.1 or /etc/resolv.conf")?;
    if let Some(word) = words.get(UPSTREAMS_MAX) {
        return Err(word.wrong(format!("forward takes at most {UPSTREAMS_MAX} servers")));
    }
    let mut forward = Forward {
        from,
        except: Vec::new(),
        to: words.iter().map(to).collect::<Result<_, _>>()?,
        policy: Order::Random,
        force_tcp: false,
        prefer_udp: false,
        expire: Duration::from_secs(10),
        max_fails: 2,
        attempts_max: 0,
        concurrent_max: 0,
        check: Check {
            period: Duration::from_millis(500),
            recursion: true,
            domain: Zone::root(),
        },
        tls: ClientTls::default(),
        fail_fast: false,
        next: Vec::new(),
        next_on_nodata: false,
        failover: Vec::new(),
        source: None,
    };
    for option in body(line) {
        read(&mut forward, option, line)?;
        no_body(option)?;
    }
    Ok(forward)
}

fn read(into: &mut Forward, option: &Line, line: &Line) -> Result<(), Error> {
    let mut args = Args::of(option);
    match option.name().text.as_str() {
        "except" => into.except.extend(zone_list(args.need_rest("a name")?)?),
        "force_tcp" => into.force_tcp = flag(option)?,
        "prefer_udp" => into.prefer_udp = flag(option)?,
        "next_on_nodata" => into.next_on_nodata = flag(option)?,
        "failfast_all_unhealthy_upstreams" => into.fail_fast = flag(option)?,
        "expire" => into.expire = duration(args.need("a time")?)?,
        "max_fails" => {
            into.max_fails = number(args.need("a number")?, "number of checks", 0..=u32::MAX)?
        }
        "max_connect_attempts" => {
            into.attempts_max = number(args.need("a number")?, "number of servers", 0..=u32::MAX)?
        }
        "max_concurrent" => {
            into.concurrent_max = number(
                args.need("a number")?,
                "number of queries",
                0..=CONCURRENT_MAX,
            )?;
        }
        // Idle connections are bounded by the number of servers here, whatever the file says.
        "max_idle_conns" => {
            number(
                args.need("a number")?,
                "number of connections",
                0..=u32::MAX,
            )?;
        }
        "tls" => tls(&mut into.tls, args.rest(), option)?,
        "tls_servername" => into.tls.name = Some(args.need("a name")?.text.clone()),
        "policy" => into.policy = order(args.need("a policy")?)?,
        "health_check" => into.check = check(&mut args)?,
        "next" => into.next.extend(codes(args.need_rest("a response code")?)?),
        "failover" => into
            .failover
            .extend(codes(args.need_rest("a response code")?)?),
        "source_address" => {
            let word = args.need("an address")?;
            let wrong = |_| word.wrong(format!("{:?} is no address", word.text));
            into.source = Some(word.text.parse().map_err(wrong)?);
        }
        _ => return Err(unknown(option, line, &OPTIONS)),
    }
    args.end()
}

fn flag(option: &Line) -> Result<bool, Error> {
    alone(option)?;
    Ok(true)
}

fn order(word: &Word) -> Result<Order, Error> {
    match word.text.as_str() {
        "random" => Ok(Order::Random),
        "round_robin" => Ok(Order::RoundRobin),
        "sequential" => Ok(Order::Sequential),
        "parallel" => Ok(Order::Parallel),
        _ => Err(none_of(
            word,
            "policy",
            &["random", "round_robin", "sequential", "parallel"],
        )),
    }
}

fn codes(words: &[Word]) -> Result<Vec<u16>, Error> {
    let one = |word: &Word| {
        let wrong = || {
            word.wrong(format!(
                "{:?} is no response code such as NXDOMAIN",
                word.text
            ))
        };
        code_of(&word.text).ok_or_else(wrong)
    };
    words.iter().map(one).collect()
}

fn tls(into: &mut ClientTls, words: &[Word], option: &Line) -> Result<(), Error> {
    let path = |word: &Word| PathBuf::from(&word.text);
    match words {
        [] => {}
        [ca] => into.ca = Some(path(ca)),
        [cert, key] => into.identity = Some((path(cert), path(key))),
        [cert, key, ca] => {
            into.identity = Some((path(cert), path(key)));
            into.ca = Some(path(ca));
        }
        _ => return Err(option.name().wrong("tls takes [CERT KEY] [CA]")),
    }
    Ok(())
}

fn check(args: &mut Args) -> Result<Check, Error> {
    let mut check = Check {
        period: duration(args.need("a time")?)?,
        recursion: true,
        domain: Zone::root(),
    };
    while let Some(word) = args.take() {
        match word.text.as_str() {
            "no_rec" => check.recursion = false,
            "domain" => {
                let name = args.need("a name after domain")?;
                let wrong = || name.wrong(format!("{:?} is no name", name.text));
                check.domain = Zone::parse(&name.text).ok_or_else(wrong)?;
            }
            _ => return Err(none_of(word, "option of a check", &["no_rec", "domain"])),
        }
    }
    Ok(check)
}

fn to(word: &Word) -> Result<To, Error> {
    let text = word.text.as_str();
    let wrong = || {
        word.wrong(format!(
            "{text:?} is no server: an address with or without a port, dns://…, tls://ADDRESS[%NAME], https://…, or a file \
             such as /etc/resolv.conf"
        ))
    };
    if let Some(rest) = text.strip_prefix("tls://") {
        let (address, name) = match rest.split_once('%') {
            Some((address, tail)) => named(address, tail),
            None => (rest.to_string(), None),
        };
        return Ok(To::Tls(socket(&address, 853).ok_or_else(wrong)?, name));
    }
    if text.starts_with("https://") {
        let url: Option<url::Url> = url::Url::parse(text).ok();
        let whole = url.filter(|url| url.host().is_some()).ok_or_else(wrong)?;
        return Ok(To::Https(whole.to_string()));
    }
    if text.starts_with('/') || text.starts_with("./") {
        return Ok(To::File(text.into()));
    }
    let rest = text.strip_prefix("dns://").unwrap_or(text);
    socket(rest, 53).map(To::Dns).ok_or_else(wrong)
}

/// `192.168.0.1%name:853`: the port may stand after the name.
fn named(address: &str, tail: &str) -> (String, Option<String>) {
    match tail.split_once(':') {
        Some((name, port)) => (format!("{address}:{port}"), Some(name.to_string())),
        None => (address.to_string(), Some(tail.to_string())),
    }
}

/// An address with or without a port.
fn socket(text: &str, port: u16) -> Option<SocketAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let alone = bare
        .parse::<IpAddr>()
        .map(|address| SocketAddr::new(address, port))
        .ok();
    alone.or_else(|| {
        text.parse()
            .ok()
            .filter(|address: &SocketAddr| address.port() > 0)
    })
}
