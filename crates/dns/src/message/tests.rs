//! Messages there and back, and bytes that are none.

use proptest::prelude::*;

use super::*;
use crate::wire::PLAIN_BYTES_MAX;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn question(text: &str, rtype: u16) -> Question {
    Question {
        name: name(text),
        rtype,
        class: class::IN,
    }
}

fn example() -> Message {
    let mut message = Message::answer(question("www.example.org", rtype::A), 0);
    message.recursion_available = true;
    message.answers = [
        "www.example.org. 60 IN CNAME web.example.org.",
        "web.example.org. 30 IN A 203.0.113.2",
        "web.example.org. 30 IN TXT \"a b\" c",
    ]
    .map(|text| record(text).unwrap())
    .to_vec();
    message.authorities =
        vec![record("example.org. 5 SOA ns.example.org. host.example.org. 1 2 3 4 60").unwrap()];
    message.additionals = [
        "_http._tcp.example.org. SRV 0 100 80 web.example.org.",
        "example.org. IN 7 MX 10 mail.example.org.",
    ]
    .map(|text| record(text).unwrap())
    .to_vec();
    message
}

#[test]
fn what_is_written_is_read() {
    let message = example();
    let bytes = message.encoded(None, 65_535);
    assert_eq!(Message::read(&bytes), Ok(message.clone()));
    let uncompressed: usize = message
        .records()
        .map(|r| r.name.as_wire().len() + r.data.len() + 10)
        .sum();
    assert!(
        bytes.len() + 60 < uncompressed,
        "names are compressed: {} of {uncompressed}",
        bytes.len()
    );
    let opt = Opt {
        payload: 1232,
        dnssec_ok: true,
        options: Vec::new(),
    };
    let mut strange = message;
    strange.rcode = rcode::BADVERS;
    let read = Message::read(&strange.encoded(Some(&opt), 65_535)).unwrap();
    assert_eq!(read.rcode, rcode::BADVERS, "its high bits stand in OPT");
    assert_eq!(soa_minimum(&read.authorities[0]), Some(5));
    assert_eq!(name_in(&read.additionals[0]), Some(name("web.example.org")));
    assert_eq!(address(&read.answers[1]), Some([203, 0, 113, 2].into()));
    let other = with_name(&read.additionals[1], &name("x.")).unwrap();
    assert_eq!(&*other.data, b"\x00\x0a\x01x\x00");
}

#[test]
fn what_does_not_fit_is_left_out() {
    let mut message = example();
    message.answers = (0..120)
        .map(|i| record(&format!("www.example.org. A 203.0.113.{i}")).unwrap())
        .collect();
    let bytes = message.encoded(None, PLAIN_BYTES_MAX);
    let read = Message::read(&bytes).unwrap();
    assert!(bytes.len() <= PLAIN_BYTES_MAX && read.truncated);
    assert_eq!(read.answers.len(), 29, "as many as CoreDNS sends");
    assert!(read.authorities.is_empty() && read.additionals.is_empty());
    // Additional records go without TC.
    let short = example();
    let whole = short.encoded(None, 65_535).len();
    let read = Message::read(&short.encoded(None, whole - 1)).unwrap();
    assert!(!read.truncated && read.additionals.len() == 1 && read.authorities.len() == 1);
}

#[test]
fn an_answer_is_for_its_client() {
    let mut bytes = vec![0xab, 0xcd, 1, 0x10, 0, 1, 0, 0, 0, 0, 0, 1];
    bytes.extend_from_slice(b"\x03wWw\x07exAmple\x03org\x00\x00\x01\x00\x01");
    bytes.extend_from_slice(&[0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
    let query = Query::read(&bytes).unwrap();
    let mut message = example();
    message.error = Some((3, "stale".into()));
    let read = Message::read(&encoded_for(&query, &message, 1232)).unwrap();
    assert_eq!(read.id, 0xabcd);
    assert!(read.recursion_desired && read.checking_disabled && read.response);
    assert_eq!(read.question.name.to_string(), "wWw.exAmple.org.");
    assert_eq!(read.error, Some((3, "stale".into())));
    assert!(
        read.answers[0].name.to_string() == "wWw.exAmple.org.",
        "by a pointer to the question"
    );
}

#[test]
fn records_that_are_none_are_told() {
    for (text, words) in [
        ("", "there is no record"),
        ("a", "\"a\" has no type of record"),
        ("a 60 IN", "\"a 60 IN\" has no type of record"),
        ("a IN X", "\"X\" is no type of record"),
        ("a A 1", "A 1: no IPv4 address"),
        ("a SRV 1 2", "SRV 1 2: the wrong number of words"),
        ("a..b A 10.0.0.1", "\"a..b\": a name has an empty label"),
        (
            "a TLSA 1",
            "TLSA 1: data of this type is written as \\# LENGTH HEX (RFC 3597)",
        ),
        ("a TXT \"b", "a \" is never closed"),
    ] {
        assert_eq!(record(text).unwrap_err(), words);
    }
    assert_eq!(&*record("a TYPE999 \\# 2 0a0B").unwrap().data, [10, 11]);
}

#[test]
fn pointers_that_lead_nowhere_are_refused() {
    let mut bytes = vec![0, 1, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for name in [
        &[0xc0, 12][..],
        &[0xc0, 14],
        &[1, b'a', 0xc0, 12],
        &[0x40],
        &[],
    ] {
        bytes.truncate(12);
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(&[0, 1, 0, 1]);
        assert_eq!(Message::read(&bytes), Err(Malformed), "{name:?}");
    }
    bytes[6] = 0xff;
    assert_eq!(Message::read(&bytes), Err(Malformed), "RECORDS_MAX");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::read(&bytes);
    }

    /// A message with one byte changed or cut off is read or refused; what is read can be written and read again.
    #[test]
    fn broken_messages_do_no_harm(at in 0usize..400, byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = example().encoded(None, 65_535);
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if let Ok(message) = Message::read(&bytes) {
            let again = Message::read(&message.encoded(None, 65_535));
            prop_assert!(again.is_ok(), "{message:?}");
        }
    }
}
