//! `cache [TTL] [ZONES…] { … }`.

use std::time::Duration;

use crate::corefile::Error;
use crate::corefile::args::{
    Args, alone, body, duration, duration_within, no_body, none_of, number, unknown, zones_or,
};
use crate::corefile::key::Zone;
use crate::corefile::lexer::{Line, Word};

/// Longest time in seconds for which an answer with records is kept, unless the file says otherwise.
pub const SUCCESS_TTL_MAX: u32 = 3600;
/// The same for denials.
pub const DENIAL_TTL_MAX: u32 = 1800;
/// Entries of each kind, unless the file says otherwise: 256 shards of 39, as in CoreDNS.
pub const ENTRIES_MAX: usize = 9984;
/// Most entries that a file can ask for: at some 300 bytes each, about 3 GB.
const CAPACITY_MAX: usize = 10_000_000;
/// Longest time for which a SERVFAIL is kept, by RFC 2308 7.1.
const SERVFAIL_MAX: Duration = Duration::from_secs(300);

/// What is kept, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Cache {
    /// Answers for names below them are kept.
    pub zones: Vec<Zone>,
    /// Answers with records.
    pub success: Keep,
    /// NXDOMAIN and NODATA.
    pub denial: Keep,
    /// Popular entries are fetched before they end.
    pub prefetch: Option<Prefetch>,
    /// Entries that have ended are used when there is nothing else.
    pub stale: Option<Stale>,
    /// For how long a SERVFAIL is kept.
    pub servfail: Duration,
    /// Answers with records for names below these are not kept.
    pub not_success: Vec<Zone>,
    /// Denials for names below these are not kept.
    pub not_denial: Vec<Zone>,
    /// Clients see the time to live that the answer had when it came.
    pub keep_ttl: bool,
}

/// About one kind of answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keep {
    /// Entries.
    pub capacity: usize,
    /// Seconds.
    pub ttl_max: u32,
    /// Seconds.
    pub ttl_min: u32,
}

/// `prefetch AMOUNT [DURATION [PERCENTAGE%]]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prefetch {
    /// So many queries make an entry popular.
    pub amount: u32,
    /// With no gap longer than this.
    pub gap: Duration,
    /// When so much of its time is left.
    pub percent: u8,
}

/// `serve_stale [DURATION] [immediate|verify]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stale {
    /// For how long after its end an entry is used.
    pub period: Duration,
    /// Whether a fresh answer is waited for first.
    pub verify: bool,
}

const OPTIONS: [&str; 7] = [
    "success",
    "denial",
    "prefetch",
    "serve_stale",
    "servfail",
    "disable",
    "keepttl",
];

pub(super) fn cache(line: &Line, block: &[Zone]) -> Result<Cache, Error> {
    let mut args = Args::of(line);
    let keep = |ttl_max| Keep {
        capacity: ENTRIES_MAX,
        ttl_max,
        ttl_min: 5,
    };
    let (mut success, mut denial) = (keep(SUCCESS_TTL_MAX), keep(DENIAL_TTL_MAX));
    let all_digits = |word: &&Word| word.text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(word) = args.peek().filter(all_digits) {
        args.take();
        let ttl = number(word, "time to live in seconds", 1..=u32::MAX >> 1)?;
        success.ttl_max = ttl;
        denial.ttl_max = ttl;
    }
    let mut cache = Cache {
        zones: zones_or(args.rest(), block)?,
        success,
        denial,
        prefetch: None,
        stale: None,
        servfail: Duration::from_secs(5),
        not_success: Vec::new(),
        not_denial: Vec::new(),
        keep_ttl: false,
    };
    for option in body(line) {
        read(&mut cache, option, line)?;
        no_body(option)?;
    }
    Ok(cache)
}

fn read(cache: &mut Cache, option: &Line, line: &Line) -> Result<(), Error> {
    let mut args = Args::of(option);
    match option.name().text.as_str() {
        "success" => keep(&mut args, &mut cache.success)?,
        "denial" => keep(&mut args, &mut cache.denial)?,
        "prefetch" => cache.prefetch = Some(prefetch(&mut args)?),
        "serve_stale" => cache.stale = Some(stale(&mut args)?),
        "servfail" => {
            let range = Duration::ZERO..=SERVFAIL_MAX;
            cache.servfail = duration_within(args.need("a time")?, range)?;
        }
        "disable" => {
            let word = args.need("success or denial")?;
            let zones = zones_or(args.rest(), &cache.zones)?;
            match word.text.as_str() {
                "success" => cache.not_success.extend(zones),
                "denial" => cache.not_denial.extend(zones),
                _ => return Err(none_of(word, "kind of answers", &["success", "denial"])),
            }
        }
        "keepttl" => {
            alone(option)?;
            cache.keep_ttl = true;
        }
        _ => return Err(unknown(option, line, &OPTIONS)),
    }
    args.end()
}

fn keep(args: &mut Args, keep: &mut Keep) -> Result<(), Error> {
    keep.capacity = number(
        args.need("a capacity")?,
        "number of entries",
        1..=CAPACITY_MAX,
    )?;
    if let Some(word) = args.take() {
        keep.ttl_max = number(word, "time to live in seconds", 0..=u32::MAX >> 1)?;
    }
    if let Some(word) = args.take() {
        keep.ttl_min = number(word, "time to live in seconds", 0..=keep.ttl_max)?;
    }
    keep.ttl_min = keep.ttl_min.min(keep.ttl_max);
    Ok(())
}

fn prefetch(args: &mut Args) -> Result<Prefetch, Error> {
    let mut prefetch = Prefetch {
        amount: number(args.need("an amount")?, "amount of queries", 0..=u32::MAX)?,
        gap: Duration::from_secs(60),
        percent: 10,
    };
    if let Some(word) = args.take() {
        prefetch.gap = duration(word)?;
    }
    if let Some(word) = args.take() {
        let wrong = || word.wrong(format!("{:?} is no percentage, 10% to 90%", word.text));
        let digits = word.text.strip_suffix('%').ok_or_else(wrong)?;
        let percent = digits
            .parse()
            .ok()
            .filter(|percent| (10..=90).contains(percent));
        prefetch.percent = percent.ok_or_else(wrong)?;
    }
    Ok(prefetch)
}

fn stale(args: &mut Args) -> Result<Stale, Error> {
    let mut stale = Stale {
        period: Duration::from_secs(3600),
        verify: false,
    };
    let mode = |text: &str| ["immediate", "verify"].contains(&text);
    if let Some(word) = args.peek().filter(|word| !mode(&word.text)) {
        args.take();
        stale.period = duration(word)?;
    }
    if let Some(word) = args.take() {
        stale.verify = match word.text.as_str() {
            "immediate" => false,
            "verify" => true,
            _ => return Err(none_of(word, "way to refresh", &["immediate", "verify"])),
        };
    }
    Ok(stale)
}
