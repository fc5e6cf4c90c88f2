//! However the bytes come, the same is let through and refused.

use proptest::prelude::*;

use super::*;

fn refused(bytes: &[u8]) -> Option<&'static str> {
    Guard::default()
        .take(bytes)
        .err()
        .map(|refused| refused.why)
}

/// A request with these lines between host and body.
fn with(lines: &str, body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nhost: a.com\r\n{lines}\r\n{body}").into_bytes()
}

#[test]
fn ordinary_requests_go_through() {
    for bytes in [
        "GET / HTTP/1.1\r\nHost: a.com\r\n\r\n",
        "\r\nGET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.com\r\n\r\nGET / HTTP/1.1\r\nHost: a.com\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.com\r\nContent-Length: 3\r\n\r\na\nbGET / HTTP/1.1\r\nHost: a.com\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a.com\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\na\nb\r\n0\r\nx-sum: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a.com\r\nx-text: \t caf\u{e9} \t\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a.com\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\r\n\0\n\u{ff} anything",
    ] {
        assert_eq!(refused(bytes.as_bytes()), None, "{bytes:?}");
    }
}

#[test]
fn an_upgrade_to_h2c_hides_nothing() {
    let bytes = "GET / HTTP/1.1\r\nhost: a.com\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\nGET / HTTP/1.1\n\n";
    assert_eq!(
        refused(bytes.as_bytes()),
        Some("a line ends with a line feed alone")
    );
    let with_body = with(
        "connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 1\r\n",
        "a\n\n",
    );
    assert!(refused(&with_body).is_some(), "behind a body there is HTTP");
}

#[test]
fn limits_are_reached() {
    let line = |count: usize| {
        with(
            "transfer-encoding: chunked\r\n",
            &format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(count)),
        )
    };
    assert_eq!(refused(&line(CHUNK_LINE_BYTES_MAX - 2)), None);
    assert_eq!(
        refused(&line(CHUNK_LINE_BYTES_MAX - 1)),
        Some("the line of a chunk's size is too long")
    );
    let size = |count: usize| {
        with(
            "transfer-encoding: chunked\r\n",
            &format!("{}1\r\na\r\n0\r\n\r\n", "0".repeat(count)),
        )
    };
    assert_eq!(refused(&size(CHUNK_DIGITS_MAX - 1)), None);
    assert!(refused(&size(CHUNK_DIGITS_MAX)).is_some());
    let length = |count: usize| with(&format!("content-length: {}1\r\n", "0".repeat(count)), "a");
    assert_eq!(refused(&length(LENGTH_DIGITS_MAX - 1)), None);
    assert_eq!(
        refused(&length(LENGTH_DIGITS_MAX)),
        Some("a length is no number")
    );
    let trailers = |count: usize| {
        with(
            "transfer-encoding: chunked\r\n",
            &format!("0\r\n{}\r\n", "x: 12345\r\n".repeat(count)),
        )
    };
    assert_eq!(refused(&trailers(TRAILER_BYTES_MAX / 10)), None);
    assert_eq!(
        refused(&trailers(TRAILER_BYTES_MAX / 10 + 1)),
        Some("trailers are too long")
    );
    let mut guard = Guard::default();
    assert_eq!(guard.take(&vec![b'x'; LINE_BYTES_MAX]), Ok(()));
    assert_eq!(
        guard.take(b"x").map_err(|refused| refused.why),
        Err("a line is too long")
    );
}

#[test]
fn the_bytes_before_go_on() {
    let bytes = b"GET / HTTP/1.1\r\nhost: a.com\n\r\n";
    let refused = Guard::default().take(bytes).unwrap_err();
    assert_eq!(&bytes[..refused.at], b"GET / HTTP/1.1\r\nhost: a.com");
}

proptest! {
    /// Reads of any size come to the same.
    #[test]
    fn cuts_change_nothing(
        parts in proptest::collection::vec(prop_oneof![
            Just(&b"GET / HTTP/1.1\r\n"[..]), Just(&b"POST / HTTP/1.0\r\n"[..]), Just(&b"host: a.com\r\n"[..]),
            Just(&b"content-length: 5\r\n"[..]), Just(&b"transfer-encoding: chunked\r\n"[..]), Just(&b"\r\n"[..]),
            Just(&b"\n"[..]), Just(&b"5\r\nabcde\r\n"[..]), Just(&b"0\r\n"[..]), Just(&b" x\r\n"[..]), Just(&b"x\0\r\n"[..]),
        ], 0..12),
        cut in 1..9_usize,
    ) {
        let bytes = parts.concat();
        let whole = Guard::default().take(&bytes);
        let mut guard = Guard::default();
        let mut passed = 0;
        let mut result = Ok(());
        for part in bytes.chunks(cut) {
            result = guard.take(part).map_err(|refused| Refused { at: passed + refused.at, ..refused });
            if result.is_err() {
                break;
            }
            passed += part.len();
        }
        prop_assert_eq!(whole, result);
    }

    #[test]
    fn no_bytes_are_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Guard::default().take(&bytes);
    }
}
