//! HTTP/2, read along with: trailers that begin with a pseudo-header, which RFC 9113 section 8.1 forbids and h2 drops.
//!
//! Behind other fields h2 refuses pseudo-headers by itself, so the first field of a block says everything. A field is
//! recognised by its number in the static table or by its name; one that is named by the dynamic table alone is not, and
//! is dropped.

/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`.
const PREFACE_BYTES: usize = 24;
/// Of a frame's head: length, type, flags, stream (RFC 9113 section 4.1).
const HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The first fields of the static table are the pseudo-headers (RFC 7541 appendix A).
const PSEUDO_MAX: u8 = 14;
/// What a byte becomes from there on where something is refused: it is no frame and no field.
const NOTHING: u8 = 0xff;

/// The frames of a client's connection, from its preface on.
#[derive(Debug)]
pub(crate) struct Frames {
    next: Next,
    /// Bytes that are passed over before `next`.
    skip: usize,
    /// Bytes of the frame's payload behind those that are passed over.
    left: usize,
    head: [u8; HEAD_BYTES],
    /// Where the block of trailers goes on in the next frame.
    resume: Next,
    /// The highest stream that has had its head: what comes for it, or one below, are trailers.
    highest: u32,
    /// Trailers have begun, and no field of them has come.
    awaits_field: bool,
    is_refused: bool,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    /// So many bytes of a frame's head are there.
    Head(usize),
    /// The first byte of a field, or of a change of the table's size.
    Field,
    /// More of that size.
    Size,
    /// The length of a name.
    Length,
    /// The first byte of a name, and whether it is in Huffman's code.
    Name(bool),
}

impl Default for Frames {
    fn default() -> Frames {
        Frames {
            next: Next::Head(0),
            skip: PREFACE_BYTES,
            left: 0,
            head: [0; HEAD_BYTES],
            resume: Next::Field,
            highest: 0,
            awaits_field: false,
            is_refused: false,
        }
    }
}

impl Frames {
    /// Takes what has been read. From what is refused on, nothing is left that anybody could understand.
    pub(crate) fn take(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while !self.is_refused && at < bytes.len() {
            if self.skip > 0 {
                let count = self.skip.min(bytes.len() - at);
                self.skip -= count;
                at += count;
                continue;
            }
            match self.next {
                Next::Head(have) => {
                    self.head[have] = bytes[at];
                    self.next = Next::Head(have + 1);
                    at += 1;
                    if have + 1 == HEAD_BYTES {
                        self.begin();
                    }
                }
                // The frame is over: what comes is the head of the next one.
                next if self.left == 0 => {
                    self.resume = next;
                    self.next = Next::Head(0);
                }
                next => {
                    self.field(next, bytes[at]);
                    if !self.is_refused {
                        self.left -= 1;
                        at += 1;
                    }
                }
            }
        }
        if self.is_refused {
            bytes[at..].fill(NOTHING);
        }
    }

    /// A frame begins.
    fn begin(&mut self) {
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        let before = match kind {
            HEADERS if stream > self.highest => {
                self.highest = stream;
                self.awaits_field = false;
                length
            }
            HEADERS => {
                self.awaits_field = true;
                self.resume = Next::Field;
                let padding = usize::from(flags & PADDED != 0);
                padding + 5 * usize::from(flags & PRIORITY != 0)
            }
            CONTINUATION if self.awaits_field => 0,
            _ => length,
        };
        self.skip = before.min(length);
        self.left = length - self.skip;
        self.next = match self.left {
            0 => Next::Head(0),
            _ => self.resume,
        };
    }

    /// RFC 7541 section 6: looks at a byte of the first field of trailers.
    fn field(&mut self, next: Next, byte: u8) {
        let index = match (next, byte) {
            (Next::Field, 0x80..) => byte & 0x7f,
            (Next::Field, 0x40..) => byte & 0x3f,
            (Next::Field, 0x20..) => {
                let is_long = byte & 0x1f == 0x1f;
                self.next = if is_long { Next::Size } else { Next::Field };
                return;
            }
            (Next::Field, _) => byte & 0x0f,
            (Next::Size, _) => {
                let is_last = byte & 0x80 == 0;
                self.next = if is_last { Next::Field } else { Next::Size };
                return;
            }
            (Next::Length, _) => {
                match byte & 0x7f {
                    0 => self.settled(),
                    _ => self.next = Next::Name(byte & 0x80 != 0),
                }
                return;
            }
            // In Huffman's code the colon is 1011100.
            (Next::Name(true), _) => u8::from(byte >> 1 == 0b101_1100),
            (Next::Name(false), _) => u8::from(byte == b':'),
            (Next::Head(_), _) => return,
        };
        match (next, index) {
            (_, 1..=PSEUDO_MAX) => self.is_refused = true,
            // No number: the name comes.
            (Next::Field, 0) if byte & 0x80 == 0 => self.next = Next::Length,
            _ => self.settled(),
        }
    }

    /// The first field is none that is refused; the rest of the frame is passed over.
    fn settled(&mut self) {
        self.awaits_field = false;
        // The byte that is looked at is counted by who has called.
        self.skip = self.left - 1;
        self.left = 1;
        self.next = Next::Head(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()];
        [&head.concat(), payload].concat()
    }

    /// Whether trailers with this block are let through, however the bytes come.
    fn passes(frames: &[Vec<u8>]) -> bool {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let settings = frame(4, 0, 0, &[0, 3, 0, 0, 0, 1]);
        let head = frame(HEADERS, 4, 1, &[0x82, 0x87, 0x84]);
        let data = frame(0, 0, 1, &[0x83; 40]);
        let ping = frame(6, 0, 0, &[0x83; 8]);
        let begin = [preface, settings, head, data].concat();
        let all = [begin.clone(), frames.concat(), ping].concat();
        let verdicts = (1..=all.len()).map(|size| {
            let mut read = Frames::default();
            let mut bytes = all.clone();
            bytes.chunks_mut(size).for_each(|bytes| read.take(bytes));
            assert_eq!(bytes[..begin.len()], begin, "nothing before is touched");
            let passed = bytes == all;
            assert!(passed || bytes.ends_with(&[NOTHING; 17]));
            assert_eq!(passed, !read.is_refused);
            passed
        });
        let verdicts: std::collections::BTreeSet<bool> = verdicts.collect();
        assert_eq!(verdicts.len(), 1, "it does not matter how bytes come");
        verdicts.contains(&true)
    }

    fn trailers(block: &[u8]) -> bool {
        passes(&[frame(HEADERS, 5, 1, block)])
    }

    #[test]
    fn pseudo_headers_are_refused_in_every_form() {
        for block in [
            // By number, with every kind of value.
            &[0x81][..],
            &[0x8e],
            &[0x42, 1, b'a'],
            &[0x02, 1, b'a'],
            &[0x1e, 1, b'a'],
            // By name, plainly and in Huffman's code.
            &[0x40, 5, b':', b'p', b'a', b't', b'h', 1, b'/'],
            &[0x00, 5, b':', b'p', b'a', b't', b'h', 1, b'/'],
            &[0x00, 0x84, 0xb9, 0x58, 0xd3, 0x3f, 1, b'/'],
            // Behind changes of the table's size.
            &[0x20, 0x83],
            &[0x3f, 0xe1, 0x1f, 0x20, 0x83],
        ] {
            assert!(!trailers(block), "{block:02x?}");
        }
        // Behind padding and a priority, and in a frame that goes on.
        let priority = [2, 0, 0, 0, 0, 16, 0x83, 0, 0];
        assert!(!passes(&[frame(HEADERS, 0x2d, 1, &priority)]));
        let first = frame(HEADERS, 1, 1, &[]);
        assert!(!passes(&[
            first.clone(),
            frame(CONTINUATION, 4, 1, &[0x83])
        ]));
        let first = frame(HEADERS, 1, 1, &[0x00, 5]);
        assert!(!passes(&[first, frame(CONTINUATION, 4, 1, b":path\x01/")]));
        let first = frame(HEADERS, 1, 1, &[0x20]);
        assert!(!passes(&[first, frame(CONTINUATION, 4, 1, &[0x83])]));
    }

    #[test]
    fn trailers_and_heads_pass() {
        for block in [
            &[][..],
            &[0x90],
            &[0x40, 1, b'x', 1, b'a'],
            &[0x00, 1, b'x', 1, b':'],
            &[0x0f, 0x2f, 1, b'a'],
            &[0x00, 0x82, 0xf3, 0xff, 1, b'a'],
            &[0x7f, 0x10, 1, b'a'],
            &[0x00, 0],
            &[0xff, 0x01],
            &[0x20, 0x90],
            // A value, or a second field, looks like one.
            &[0x90, 0x83],
        ] {
            assert!(trailers(block), "{block:02x?}");
        }
        // A field that is cut in two.
        let parts = [
            frame(HEADERS, 1, 1, &[0x00]),
            frame(CONTINUATION, 4, 1, &[5]),
        ];
        assert!(passes(&parts));
        // Another stream's head.
        assert!(passes(&[frame(HEADERS, 5, 3, &[0x82, 0x87, 0x84])]));
        let first = frame(HEADERS, 1, 3, &[0x82]);
        assert!(passes(&[first, frame(CONTINUATION, 4, 3, &[0x84])]));
        let first = frame(HEADERS, 1, 1, &[0x90]);
        assert!(passes(&[first, frame(CONTINUATION, 4, 1, &[0x83])]));
        // Shorter than its own padding says: h2 refuses that.
        assert!(passes(&[frame(HEADERS, 0x2d, 1, &[2, 0])]));
    }
}
