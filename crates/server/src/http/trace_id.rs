//! The id of the trace that a request is a part of, where whoever sent it says so (W3C Trace Context).
//!
//! Only read: nothing is traced here, so nothing is made up where it is missing or makes no sense.

use std::fmt;
use std::num::NonZeroU128;

use axum::http::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Bytes of a header of version 00; later versions may be longer.
const LEN: usize = 55;

/// A trace's id. It is never zero, so that having none takes no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceId(NonZeroU128);

impl TraceId {
    /// The one that a request's head names; none where that is not as the standard has it, or is there twice.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value.as_bytes()),
            _ => None,
        }
    }

    /// `00-`, 32 digits of the trace, `-`, 16 of the span, `-`, 2 of flags: hexadecimal and lower case. Version ff is
    /// forbidden, and what a later version has behind that begins with a hyphen.
    fn parse(text: &[u8]) -> Option<Self> {
        let (head, more) = text.split_at_checked(LEN)?;
        let [version, trace, span, flags] = [&head[..2], &head[3..35], &head[36..52], &head[53..]];
        let hyphens = [head[2], head[35], head[52]] == *b"---";
        let digits = [version, trace, span, flags]
            .iter()
            .all(|field| field.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')));
        let ends = match version {
            b"ff" => false,
            b"00" => more.is_empty(),
            _ => more.is_empty() || more.starts_with(b"-"),
        };
        if !(hyphens && digits && ends) || span.iter().all(|digit| *digit == b'0') {
            return None;
        }
        let trace = u128::from_str_radix(std::str::from_utf8(trace).ok()?, 16).ok()?;
        NonZeroU128::new(trace).map(Self)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn of(values: &[&[u8]]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, HeaderValue::from_bytes(value).unwrap());
        }
        TraceId::of(&headers).map(|id| id.to_string())
    }

    #[test]
    fn the_id_of_the_standard_is_read_and_shown_as_it_came() {
        let id = Some("0af7651916cd43dd8448eb211c80319c".to_owned());
        assert_eq!(of(&[GOOD.as_bytes()]), id);
        // Of a version to come, with what it may have more.
        for later in [
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-will-be-like",
        ] {
            assert_eq!(of(&[later.as_bytes()]), id, "{later}");
        }
        let small = "00-00000000000000000000000000000001-0000000000000001-00";
        assert_eq!(of(&[small.as_bytes()]).unwrap(), "00000000000000000000000000000001");
    }

    #[test]
    fn what_is_not_as_the_standard_has_it_is_no_id() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[GOOD.as_bytes(), GOOD.as_bytes()]), None);
        for bad in [
            "",
            "00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
            "0--0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(of(&[bad.as_bytes()]), None, "{bad}");
        }
        let long = GOOD.repeat(100);
        let umlaut = GOOD.replace("0af", "\u{e4}f").into_bytes();
        let bytes = [0xff; LEN];
        for bad in [long.as_bytes(), &umlaut, &bytes] {
            assert_eq!(of(&[bad]), None);
        }
    }
}
