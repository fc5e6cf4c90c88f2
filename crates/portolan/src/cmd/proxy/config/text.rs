//! Values as kube-proxy's file and flags write them: Go's durations, addresses with a port, pairs of ranges.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde::Serializer;

/// Units of Go's durations, in nanoseconds; longer names before those that they begin with.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// Go's durations: `30s`, `10ms`, `1m30s`, `0`. None here may be negative.
pub(in crate::cmd::proxy) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text} is no duration such as 30s or 10ms");
    if text.starts_with('-') {
        return Err(format!("{text} is negative"));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = UNITS.iter().find(|(unit, _)| rest.starts_with(unit));
        let (unit, factor) = unit.ok_or_else(wrong)?;
        nanoseconds += number * factor;
        rest = &rest[unit.len()..];
    }
    Duration::try_from_secs_f64(nanoseconds / 1e9).map_err(|_| wrong())
}

/// As Go writes it: `0s`, `15m0s`, `1.5s`, `10ms`.
pub(in crate::cmd::proxy) fn written(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.is_zero() {
        return "0s".into();
    }
    if seconds == 0 {
        let nanoseconds = duration.subsec_nanos();
        return match nanoseconds {
            0..1_000 => format!("{nanoseconds}ns"),
            1_000..1_000_000 => format!("{}µs", f64::from(nanoseconds) / 1e3),
            _ => format!("{}ms", f64::from(nanoseconds) / 1e6),
        };
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let part = (seconds % 60) as f64 + f64::from(duration.subsec_nanos()) / 1e9;
    match (hours, minutes) {
        (0, 0) => format!("{part}s"),
        (0, _) => format!("{minutes}m{part}s"),
        (_, _) => format!("{hours}h{minutes}m{part}s"),
    }
}

/// For serde: a duration as Go writes it.
pub(super) fn write_duration<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&written(*duration))
}

/// An address to listen at; `port` is added to an address without one, as kube-proxy does. Empty is nowhere.
pub(super) fn bind_address(text: &str, port: u16) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    if let Ok(ip) = bare.unwrap_or(text).parse::<IpAddr>() {
        return Ok(Some(SocketAddr::new(ip, port)));
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() > 0 => Ok(Some(address)),
        _ => Err(format!(
            "{text} is no address with a port, such as 0.0.0.0:{port}"
        )),
    }
}

/// For serde: an address with its port; nowhere is empty.
pub(super) fn write_address<S: Serializer>(
    address: &Option<SocketAddr>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => serializer.collect_str(address),
        None => serializer.serialize_str(""),
    }
}

/// One range, or one of each family, with a comma.
pub(super) fn cluster_cidr(text: &str) -> Result<Vec<IpNet>, String> {
    let parts = text.split(',').map(str::trim);
    let parse = |part: &str| {
        part.parse()
            .map_err(|_| format!("{part} is no range such as 10.244.0.0/16"))
    };
    let ranges: Vec<IpNet> = match text.trim().is_empty() {
        true => Vec::new(),
        false => parts.map(parse).collect::<Result<_, _>>()?,
    };
    let v6 = |range: &IpNet| matches!(range, IpNet::V6(_));
    match ranges.as_slice() {
        [] | [_] => Ok(ranges),
        [one, other] if v6(one) != v6(other) => Ok(ranges),
        _ => Err(format!(
            "{text} is neither one range nor one of each family (10.244.0.0/16,fd00:10:244::/56)"
        )),
    }
}

/// For serde: ranges with commas.
pub(super) fn write_ranges<S: Serializer>(
    ranges: &[IpNet],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let texts: Vec<String> = ranges.iter().map(IpNet::to_string).collect();
    serializer.serialize_str(&texts.join(","))
}

/// For serde: an empty list is `null`, as Go writes it.
pub(super) fn write_list<S: Serializer>(list: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    match list.is_empty() {
        true => serializer.serialize_none(),
        false => serializer.collect_seq(list),
    }
}

/// For serde: a number without a fraction has no point.
pub(super) fn write_number<S: Serializer>(number: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    match number.fract() == 0.0 && number.abs() < 1e9 {
        true => serializer.serialize_i64(*number as i64),
        false => serializer.serialize_f32(*number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, millis, again) in [
            ("0s", 0, "0s"),
            ("0", 0, "0s"),
            ("30s", 30_000, "30s"),
            ("+10ms", 10, "10ms"),
            ("1.5s", 1_500, "1.5s"),
            ("15m", 900_000, "15m0s"),
            ("1h", 3_600_000, "1h0m0s"),
            ("1h30m1ms", 5_400_001, "1h30m0.001s"),
            ("2h22m", 8_520_000, "2h22m0s"),
        ] {
            let given = duration(text).unwrap();
            assert_eq!(given, Duration::from_millis(millis), "{text}");
            assert_eq!(written(given), again);
            assert_eq!(duration(again), Ok(given));
        }
        for (nanoseconds, text) in [(7, "7ns"), (1_500, "1.5µs"), (2_000_000, "2ms")] {
            let given = Duration::from_nanos(nanoseconds);
            assert_eq!(written(given), text);
            assert_eq!(duration(text), Ok(given));
        }
        for (text, words) in [
            ("", "no duration"),
            ("5", "no duration"),
            ("s", "no duration"),
            ("1d", "no duration"),
            ("1.2.3s", "no duration"),
            ("9999999999999999h", "no duration"),
            ("-1s", "negative"),
        ] {
            assert!(duration(text).unwrap_err().contains(words), "{text}");
        }
    }

    #[test]
    fn a_port_is_added_where_none_is() {
        let at = |text: &str| bind_address(text, 10256).map(|at| at.map(|at| at.to_string()));
        assert_eq!(at(""), Ok(None));
        for (text, whole) in [
            ("127.0.0.1", "127.0.0.1:10256"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("::", "[::]:10256"),
            ("[::]", "[::]:10256"),
            ("[::1]:5", "[::1]:5"),
        ] {
            assert_eq!(at(text), Ok(Some(whole.into())));
        }
        for text in ["localhost:1", "127.0.0.1:0", "127.0.0.1:99999", ":10256"] {
            assert!(at(text).unwrap_err().contains("no address"), "{text}");
        }
    }

    #[test]
    fn pods_have_one_range_of_each_family() {
        let count = |text: &str| cluster_cidr(text).map(|ranges| ranges.len());
        assert_eq!(count(""), Ok(0));
        assert_eq!(count("10.0.0.0/8, fd00:10::/32"), Ok(2));
        for text in ["10.0.0.0/8,10.1.0.0/16", "10.0.0.0/33", "a"] {
            assert!(count(text).is_err(), "{text}");
        }
    }
}
