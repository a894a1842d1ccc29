//! Which form of an answer a client asks for, and whether it has it already.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::header::{ACCEPT_ENCODING, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};

use super::describe::{Described, Description};

/// How the bytes of an answer are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Not at all.
    Identity,
    /// Compressed.
    Gzip,
}

/// Which of the forms of an answer a client asks for, and which answers it has.
pub(super) struct Asked {
    /// How it wants the bytes.
    pub(super) coding: Coding,
    known: Vec<HeaderValue>,
}

impl Asked {
    /// What the headers of a request say.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let coding = if accepts_gzip(headers) { Coding::Gzip } else { Coding::Identity };
        Self { coding, known: headers.get_all(IF_NONE_MATCH).iter().cloned().collect() }
    }

    /// Whether the client has the answer of this tag. A proxy that compresses makes a tag weak.
    pub(super) fn has(&self, etag: &str) -> bool {
        self.known.iter().any(|value| {
            let tags = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            tags.map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag))
                .any(|tag| tag == b"*" || tag == etag.as_bytes())
        })
    }
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

impl Described for Asked {
    fn describe(description: &mut Description) {
        description.header("If-None-Match", "The ETag of what the client has", None);
    }
}

/// Whether the client names gzip without refusing it (`q=0`).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let named = |value: &HeaderValue| {
        value.to_str().unwrap_or_default().split(',').any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"))
                && !parts.any(|p| p.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)))
        })
    };
    headers.get_all(ACCEPT_ENCODING).iter().any(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_ask_for_it() {
        for (value, expected) in [
            ("gzip", true),
            ("br, GZip;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip;q=0.0, br", false),
            ("br", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
            assert_eq!(accepts_gzip(&headers), expected, "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
