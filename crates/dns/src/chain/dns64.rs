//! `dns64`: IPv6 addresses for what has only IPv4 ones (RFC 6147).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

use super::Asked;
use crate::corefile::plugin::Dns64;
use crate::message::{Message, Record, address};
use crate::wire::{class, rtype};

/// How long made addresses may be kept at most, when no SOA record says it (RFC 6147, section 5.1.7).
const TTL_MAX: u32 = 600;

/// Whether the plugin has to do with a question at all.
pub(super) fn concerns(options: &Dns64, asked: &Asked) -> bool {
    let question = &asked.ask.question;
    let family = options.allow_ipv4 || super::address_of(&asked.client).is_ipv6();
    question.rtype == rtype::AAAA && question.class == class::IN && family
}

/// Whether addresses have to be made, given the answer for AAAA.
pub(super) fn wanted(options: &Dns64, message: &Message) -> bool {
    // The range ::ffff:0:0/96 must not be given to clients (RFC 6147, section 5.1.4).
    let real = |record: &Record| {
        record.rtype == rtype::AAAA
            && matches!(address(record), Some(IpAddr::V6(address)) if address.to_ipv4_mapped().is_none())
    };
    message.rcode == 0 && (options.translate_all || !message.answers.iter().any(real))
}

/// The answer for A becomes one for AAAA; `before` is the one for AAAA.
pub(super) fn translate(options: &Dns64, before: &Message, found: Message) -> Message {
    let soa = before
        .authorities
        .iter()
        .find(|record| record.rtype == rtype::SOA);
    let ttl_max = soa.map_or(TTL_MAX, |soa| soa.ttl);
    let mut message = found;
    message.question = before.question.clone();
    message.authentic_data = false;
    message.authorities.clear();
    message.additionals.clear();
    for record in &mut message.answers {
        if let Some(IpAddr::V4(address)) = address(record) {
            record.rtype = rtype::AAAA;
            record.ttl = record.ttl.min(ttl_max);
            record.data = embed(options.prefix, address).octets().into();
        }
    }
    message
}

/// The address in the prefix; bits 64 to 71 stay empty (RFC 6052, section 2.2).
fn embed(prefix: Ipv6Net, address: Ipv4Addr) -> Ipv6Addr {
    let mut octets = prefix.network().octets();
    let mut at = usize::from(prefix.prefix_len()) / 8;
    for octet in address.octets() {
        if at == 8 {
            at += 1;
        }
        octets[at] = octet;
        at += 1;
    }
    octets.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stand_where_rfc_6052_says() {
        let address = Ipv4Addr::new(192, 0, 2, 33);
        for (prefix, made) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100:0"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
        ] {
            assert_eq!(
                embed(prefix.parse().unwrap(), address),
                made.parse::<Ipv6Addr>().unwrap(),
                "{prefix}"
            );
        }
    }
}
