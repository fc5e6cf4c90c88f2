//! Which answers are made smaller, and how: by what the client takes, and by what the answer is.

use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
};
use http::{HeaderMap, StatusCode};

/// How answers are made smaller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compression {
    /// Level of gzip, 1 to 9, if it is on.
    pub gzip: Option<u32>,
    /// Level of brotli, 0 to 11, if it is on.
    pub brotli: Option<u32>,
    /// Types of content, without parameters and in lower case; `*` for all.
    pub types: Vec<String>,
    /// Answers that are known to be shorter are left as they are.
    pub bytes_min: u64,
}

/// A coding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Brotli,
}

impl Coding {
    /// As in `Content-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Brotli => "br",
        }
    }
}

impl Compression {
    /// How the answer to a request is coded, if it is. Answers that are coded already, are parts, or forbid it are not.
    pub fn coding(
        &self,
        asked: &HeaderMap,
        status: StatusCode,
        answer: &HeaderMap,
    ) -> Option<Coding> {
        let coded = answer.contains_key(CONTENT_ENCODING) || answer.contains_key(CONTENT_RANGE);
        let bodiless = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if coded || bodiless || forbids(answer) || !self.is_of_type(answer) || self.is_short(answer)
        {
            return None;
        }
        let brotli = self.brotli.and_then(|_| quality(asked, "br")).unwrap_or(0);
        let gzip = self.gzip.and_then(|_| quality(asked, "gzip")).unwrap_or(0);
        match (brotli, gzip) {
            (0, 0) => None,
            (brotli, gzip) if brotli >= gzip => Some(Coding::Brotli),
            _ => Some(Coding::Gzip),
        }
    }

    fn is_of_type(&self, answer: &HeaderMap) -> bool {
        let value = answer
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let kind = value.split(';').next().unwrap_or_default().trim();
        self.types
            .iter()
            .any(|of| of == "*" || of.eq_ignore_ascii_case(kind))
    }

    fn is_short(&self, answer: &HeaderMap) -> bool {
        let length = answer
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok());
        length
            .and_then(|text| text.parse::<u64>().ok())
            .is_some_and(|length| length < self.bytes_min)
    }
}

/// RFC 9111 section 5.2.2.6.
fn forbids(answer: &HeaderMap) -> bool {
    let values = answer
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case("no-transform"))
}

/// How much a client likes a coding, in thousandths (RFC 9110 section 12.5.3).
fn quality(asked: &HeaderMap, coding: &str) -> Option<u32> {
    let values = asked
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut found = None;
    for item in values.flat_map(|value| value.split(',')) {
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        let weight = match parameters.trim().strip_prefix("q=") {
            Some(text) => text.trim().parse::<f32>().unwrap_or(0.0).clamp(0.0, 1.0),
            None => 1.0,
        };
        let weight = (weight * 1000.0) as u32;
        match name.trim() {
            name if name.eq_ignore_ascii_case(coding) => return Some(weight),
            "*" => found = Some(weight),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coding(accept: &str, answer: &[(&str, &str)]) -> Option<Coding> {
        let compression = Compression {
            gzip: Some(5),
            brotli: Some(4),
            types: vec!["text/html".into()],
            bytes_min: 100,
        };
        let mut asked = HeaderMap::new();
        asked.insert(ACCEPT_ENCODING, accept.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in answer {
            headers.append(
                http::HeaderName::try_from(*name).unwrap(),
                value.parse().unwrap(),
            );
        }
        compression.coding(&asked, StatusCode::OK, &headers)
    }

    #[test]
    fn clients_get_what_they_take() {
        let html = [("content-type", "Text/HTML; charset=utf-8")];
        assert_eq!(coding("gzip, br", &html), Some(Coding::Brotli));
        assert_eq!(coding("gzip;q=1.0, br;q=0.5", &html), Some(Coding::Gzip));
        assert_eq!(coding("gzip", &html), Some(Coding::Gzip));
        assert_eq!(coding("*", &html), Some(Coding::Brotli));
        for none in ["", "identity", "gzip;q=0", "deflate", "*;q=0"] {
            assert_eq!(coding(none, &html), None, "{none}");
        }
    }

    #[test]
    fn some_answers_stay_as_they_are() {
        let html = ("content-type", "text/html");
        for other in [
            ("content-encoding", "gzip"),
            ("content-range", "bytes 0-1/2"),
            ("cache-control", "public, no-transform"),
            ("content-length", "99"),
        ] {
            assert_eq!(coding("gzip", &[html, other]), None, "{other:?}");
        }
        assert_eq!(
            coding("gzip", &[html, ("content-length", "100")]),
            Some(Coding::Gzip)
        );
        assert_eq!(coding("gzip", &[("content-type", "image/png")]), None);
        assert_eq!(coding("gzip", &[]), None);
    }
}
