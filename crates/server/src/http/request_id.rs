//! The id that a request is known by in its response, its problem document and the log, and beside it the id of the
//! trace that it is a part of.
//!
//! It is kept in a thread-local that is set while the request's future is being polled, not in the
//! request's extensions: that costs two moves instead of a box and a hash map, and code that builds
//! a problem needs no handle on the request. A task that a handler spawns does not inherit it.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::trace_id::TraceId;

/// The header that carries the id, in requests and responses.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is taken from a request, in bytes.
const MAX_LEN: usize = 128;

thread_local! {
    static CURRENT: RefCell<Option<RequestId>> = const { RefCell::new(None) };
}

/// A request's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId {
    repr: Repr,
    trace: Option<TraceId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Repr {
    /// The client's: visible ASCII, at most [`MAX_LEN`] bytes.
    Given(HeaderValue),
    /// Ours: formatted only when it is shown.
    Made { process: u32, number: u64 },
}

impl RequestId {
    /// The id of the request whose future is being polled; none outside of any.
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Makes `id` current and returns the one that was.
    pub(crate) fn replace_current(id: Option<Self>) -> Option<Self> {
        CURRENT.replace(id)
    }

    /// The trace that the request is a part of, where whoever sent it says so.
    pub(crate) const fn trace(&self) -> Option<TraceId> {
        self.trace
    }

    /// The id as a header value.
    pub fn header_value(&self) -> HeaderValue {
        match &self.repr {
            Repr::Given(value) => value.clone(),
            Repr::Made { process, number } => {
                let mut text = [0; 24];
                write_hex(&mut text[..8], u64::from(*process));
                write_hex(&mut text[8..], *number);
                // Hexadecimal digits are visible ASCII, so the fallback cannot be reached.
                HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
            }
        }
    }
}

fn write_hex(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.repr {
            Repr::Given(value) => f.write_str(value.to_str().unwrap_or("-")),
            Repr::Made { process, number } => write!(f, "{process:08x}{number:016x}"),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // Outside of an observed route there is none; an id that matches nothing is still an id.
        let none = || Self { repr: Repr::Made { process: 0, number: 0 }, trace: None };
        Ok(Self::current().unwrap_or_else(none))
    }
}

/// Makes ids that no other process makes and none repeats.
#[derive(Debug)]
pub(crate) struct RequestIds {
    process: u32,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        // The standard library seeds its hasher from the system's entropy, which saves a crate for
        // 32 bits that need only differ between processes.
        let random = RandomState::new().build_hasher().finish();
        Self { process: (random >> 32) as u32, next: AtomicU64::new(1) }
    }

    /// The request's own id where it is usable, else a new one; and its trace.
    pub(crate) fn take_or_make(&self, headers: &HeaderMap) -> RequestId {
        let trace = TraceId::of(headers);
        if let Some(value) = headers.get(X_REQUEST_ID)
            && (1..=MAX_LEN).contains(&value.len())
            && value.as_bytes().iter().all(u8::is_ascii_graphic)
        {
            return RequestId { repr: Repr::Given(value.clone()), trace };
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        RequestId { repr: Repr::Made { process: self.process, number }, trace }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
        headers
    }

    #[test]
    fn a_usable_id_is_taken_and_any_other_replaced() {
        let ids = RequestIds::new();
        assert_eq!(ids.take_or_make(&headers(b"abc-1")).to_string(), "abc-1");
        let long = [b'x'; 129];
        for bad in [b"".as_slice(), b"a b", b"\xff", &long] {
            assert_eq!(ids.take_or_make(&headers(bad)).to_string().len(), 24);
        }
    }

    #[test]
    fn made_ids_differ_and_read_the_same_everywhere() {
        let ids = RequestIds::new();
        let one = ids.take_or_make(&HeaderMap::new());
        let two = ids.take_or_make(&HeaderMap::new());
        assert_ne!(one, two);
        assert_eq!(one.to_string(), one.header_value().to_str().unwrap());
    }
}
