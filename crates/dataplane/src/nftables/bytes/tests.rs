//! What a key of an element and the registers of a packet must have in common: every byte, also those between values.

use portolan_model::Balance;

use super::super::class::{Via, Way};
use super::*;

const ID: [u8; 12] = [172, 30, 0, 1, 0, 80, 0, 0, 17, 0, 0, 0];
const TO: [u8; 8] = [10, 1, 0, 10, 31, 144, 0, 0];

fn spot() -> Spot {
    Spot {
        address: [172, 30, 0, 1].into(),
        protocol: Protocol::Udp,
        port: 80,
    }
}

fn class() -> Class {
    let reject = Way::Reject;
    Class {
        via: Via::Alias,
        guarded: true,
        affinity_s: 7,
        pod: reject,
        host: reject,
        outside: reject,
        balance: Balance::Random,
        main: 3,
        other: 0,
    }
}

fn written(element: &Element) -> [Vec<u8>; 3] {
    let [mut key, mut end, mut data] = <[Vec<u8>; 3]>::default();
    element.write_key(&mut key);
    assert_eq!(element.write_key_end(&mut end), !end.is_empty());
    element.write_data(&mut data);
    [key, end, data]
}

#[test]
fn bytes_lie_as_in_registers() {
    let to = ([10, 1, 0, 10], 8080).into();
    let numbers = class().pack().into_iter().flat_map(u32::to_ne_bytes);
    let numbers: Vec<u8> = numbers.collect();
    let slot = 2_u32.to_ne_bytes();
    let entry = || [&[0; 4], &numbers[..], &ID[..8]].concat();
    let range = "203.0.113.0/24".parse().unwrap();
    let (first, last, after) = ([203, 0, 113, 0], [203, 0, 113, 255], [203, 0, 114, 0]);
    let none = Vec::new;
    for (element, wanted) in [
        (
            Element::Service(spot(), class(), spot()),
            [ID.to_vec(), none(), entry()],
        ),
        (
            Element::NodePort(Protocol::Udp, 80, class(), spot()),
            [ID[4..].to_vec(), none(), entry()],
        ),
        (
            Element::Endpoint(spot(), 2, to),
            [[&ID[..], &slot].concat(), none(), TO.to_vec()],
        ),
        (
            Element::StickyEndpoint(spot(), 2, to),
            [
                [&ID[..], &slot].concat(),
                none(),
                [&[0; 4][..], &TO].concat(),
            ],
        ),
        (
            Element::Member(List::Main, spot(), to),
            [[&TO[..], &ID].concat(), none(), none()],
        ),
        (
            Element::Allowed(spot(), range),
            [
                [&ID[..], &first].concat(),
                [&ID[..], &last].concat(),
                none(),
            ],
        ),
        (
            Element::PodCidr(range),
            [first.to_vec(), after.to_vec(), none()],
        ),
        (
            Element::ClusterIp([172, 30, 0, 1].into()),
            [ID[..4].to_vec(), none(), none()],
        ),
    ] {
        assert_eq!(written(&element), wanted, "{element}");
        let [key, end, data] = wanted;
        let end = (!end.is_empty()).then_some(&end[..]);
        let read = Element::read(Family::V4, element.set(), &key, end, &data);
        assert_eq!(read, Some(element));
    }
}

/// Somebody else's elements are not rounded to ranges of ours.
#[test]
fn ranges_that_are_no_prefix_are_not_read() {
    let read = |first: [u8; 4], after: [u8; 4]| {
        Element::read(Family::V4, SetName::PodCidrs, &first, Some(&after), &[])
    };
    assert!(read([10, 0, 0, 0], [10, 0, 0, 4]).is_some());
    assert_eq!(read([10, 0, 0, 0], [10, 0, 0, 3]), None);
    assert_eq!(read([10, 0, 0, 1], [10, 0, 0, 4]), None);
}
