//! Reading requests: JSON bodies, ids, amounts and headers, strictly, with errors that name the
//! place. Each extractor also describes itself, for the API's description.
//!
//! What does not belong here: what a value means. An amount below one is read, and refused by
//! whoever knows the rule.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use axum::extract::{FromRef, FromRequest, FromRequestParts, Path, RawPathParams, Request};
use axum::http::header::{CONTENT_TYPE, COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use boxoffice_domain::ids::{ConcertId, PaymentId, ReservationId, SeatId, SessionId, UserId};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{self, DeserializeOwned, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use super::client::ClientAddress;
use super::describe::{Described, Description};
use super::observe::AwaitsBody;
use super::problem::{ErrorCode, Problem};

/// `Idempotency-Key`, of the IETF draft of that name.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The same as it is written in documents.
const IDEMPOTENCY_KEY_HEADER: &str = "Idempotency-Key";

/// Longest idempotency key, in characters.
const IDEMPOTENCY_KEY_MAX: usize = 255;

/// A type of ids, for paths and bodies.
pub trait Id: Sized {
    /// What such an id names, for the description.
    const NAMES: &'static str;

    /// The id with this value; `None` unless it is positive.
    fn from_value(value: i64) -> Option<Self>;

    /// The id in a positive decimal 64-bit number without sign, space or leading zero.
    ///
    /// One form per id, so that an id in a log, a path and an idempotency record is always the same
    /// text.
    fn parse(text: &str) -> Option<Self> {
        let canonical = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
        if canonical { text.parse().ok().and_then(Self::from_value) } else { None }
    }
}

macro_rules! ids {
    ($($id:ident $names:literal,)+) => {
        $(impl Id for $id {
            const NAMES: &'static str = $names;

            fn from_value(value: i64) -> Option<Self> {
                Self::new(value)
            }
        })+
    };
}

ids! {
    UserId "The user",
    ConcertId "The concert",
    SessionId "The session",
    SeatId "The seat",
    ReservationId "The reservation",
    PaymentId "The payment",
}

/// An id in a request body: a JSON number or a decimal string, 1 to 2⁶³−1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireId<T>(pub T);

impl Serialize for WireId<UserId> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0.get())
    }
}

const TWO_TO_53: f64 = 9_007_199_254_740_992.0;

/// JSON has one kind of number: 3, 3.0 and 3e0 are the same, and whole.
fn integral(value: f64) -> Option<i64> {
    // From 2^53 on, the nearest float may be that of another number: an id would become the one
    // next to it, which is somebody else's.
    #[allow(clippy::cast_possible_truncation)]
    let whole = (value.fract() == 0.0 && value.abs() < TWO_TO_53).then_some(value as i64);
    whole
}

/// A whole number in a request, for settings and counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Whole<T>(pub T);

impl<'de, T: TryFrom<i64>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WholeVisitor;

        impl Visitor<'_> for WholeVisitor {
            type Value = i64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<i64, E> {
                Ok(value)
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<i64, E> {
                i64::try_from(value)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<i64, E> {
                integral(value).ok_or_else(|| E::invalid_type(de::Unexpected::Float(value), &self))
            }
        }

        let value = deserializer.deserialize_any(WholeVisitor)?;
        T::try_from(value).map(Self).map_err(|_| {
            de::Error::invalid_value(de::Unexpected::Signed(value), &"a number in range")
        })
    }
}

impl<'de, T: Id> Deserialize<'de> for WireId<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdVisitor<T>(PhantomData<T>);

        impl<T: Id> Visitor<'_> for IdVisitor<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "an id: a whole number from 1 to 9223372036854775807, or such a number as a \
                     string",
                )
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
                T::from_value(value)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(value), &self))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
                let id = i64::try_from(value).ok().and_then(T::from_value);
                id.ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(value), &self))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<T, E> {
                let id = integral(value).and_then(T::from_value);
                id.ok_or_else(|| E::invalid_value(de::Unexpected::Float(value), &self))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<T, E> {
                // The text itself is not repeated: it may be long.
                T::parse(value)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Other("another string"), &self))
            }
        }

        deserializer.deserialize_any(IdVisitor(PhantomData)).map(Self)
    }
}

/// An amount of points in a request body: a JSON integer or a decimal string of any size, never a
/// fraction. Range is the caller's judgement, because an amount out of range is well-formed (422)
/// and a fraction is not (400).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireAmount {
    /// An integer that fits.
    Value(i64),
    /// An integer beyond 64 bits, in either direction.
    OutOfRange,
}

impl WireAmount {
    /// The amount where it fits into 64 bits.
    pub const fn get(self) -> Option<i64> {
        match self {
            Self::Value(value) => Some(value),
            Self::OutOfRange => None,
        }
    }
}

impl<'de> Deserialize<'de> for WireAmount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AmountVisitor;

        impl Visitor<'_> for AmountVisitor {
            type Value = WireAmount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of points, or such a number as a string")
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<WireAmount, E> {
                Ok(WireAmount::Value(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<WireAmount, E> {
                Ok(i64::try_from(value).map_or(WireAmount::OutOfRange, WireAmount::Value))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<WireAmount, E> {
                // The parser turns integers beyond 64 bits into floats. Numbers that large have no
                // fraction, whichever way they were written, and are beyond any balance.
                if value.abs() >= TWO_TO_53 {
                    return Ok(WireAmount::OutOfRange);
                }
                integral(value)
                    .map(WireAmount::Value)
                    .ok_or_else(|| E::invalid_type(de::Unexpected::Float(value), &self))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<WireAmount, E> {
                let digits = value.strip_prefix('-').unwrap_or(value);
                let canonical = digits == "0"
                    || (!digits.is_empty()
                        && !digits.starts_with('0')
                        && digits.bytes().all(|byte| byte.is_ascii_digit()));
                if canonical {
                    Ok(value.parse().map_or(WireAmount::OutOfRange, WireAmount::Value))
                } else {
                    Err(E::invalid_value(de::Unexpected::Other("another string"), &self))
                }
            }
        }

        deserializer.deserialize_any(AmountVisitor)
    }
}

/// Limits of reading a body; handlers' state provides it through [`FromRef`].
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Largest body, in bytes.
    pub max_bytes: usize,
    /// Time for the whole body to arrive.
    pub timeout: Duration,
}

/// A JSON body.
///
/// Rejects with 415 (no JSON content type), 413, 408, 400 `MALFORMED_JSON` (empty, not UTF-8, not
/// one JSON document, nested deeper than 128) or 400 `INVALID_FIELD` (wrong type, missing or twice;
/// the detail starts with the path).
#[derive(Debug, Clone, Copy)]
pub struct ApiJson<T>(pub T);

impl<T, S> FromRequest<S> for ApiJson<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
    BodyLimits: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let client = ClientAddress::within(&parts);
        Self::read(&parts.headers, body, BodyLimits::from_ref(state), client).await
    }
}

impl<T: ToSchema> Described for ApiJson<T> {
    fn describe(description: &mut Description) {
        description.json_body::<T>();
        description.errors(&[
            ErrorCode::MalformedJson,
            ErrorCode::InvalidField,
            ErrorCode::DuplicateHeader,
            ErrorCode::RequestTimeout,
            ErrorCode::BodyTooLarge,
            ErrorCode::UnsupportedMediaType,
            ErrorCode::TooManySlowBodies,
        ]);
    }
}

impl<T: DeserializeOwned> ApiJson<T> {
    /// Reads the body of a request that has not been through the router.
    pub(crate) async fn read<B>(
        headers: &HeaderMap,
        body: B,
        limits: BodyLimits,
        client: ClientAddress,
    ) -> Result<Self, Problem>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let bytes = read_json_body(headers, body, limits, client).await?;
        parse_json(&bytes).map(Self)
    }
}

/// Reads a body that says that it is JSON.
///
/// # Errors
/// See [`ApiJson`].
pub(crate) async fn read_json_body<B>(
    headers: &HeaderMap,
    body: B,
    limits: BodyLimits,
    client: ClientAddress,
) -> Result<Bytes, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    check_content_type(headers, &body)?;
    read_body(body, limits, client).await
}

fn check_content_type(headers: &HeaderMap, body: &impl HttpBody) -> Result<(), Problem> {
    // What nearly every client sends, word for word.
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    if values.next().is_some_and(|value| value == "application/json") && values.next().is_none() {
        return Ok(());
    }
    let Some(value) = single_header(headers, &CONTENT_TYPE)? else {
        return if body.is_end_stream() {
            Err(empty_body())
        } else {
            Err(Problem::new(ErrorCode::UnsupportedMediaType))
        };
    };
    let essence = value.split(';').next().unwrap_or(value).trim();
    let json = essence.eq_ignore_ascii_case("application/json")
        || essence.len() > 5
            && essence.as_bytes()[essence.len() - 5..].eq_ignore_ascii_case(b"+json");
    if json { Ok(()) } else { Err(Problem::new(ErrorCode::UnsupportedMediaType)) }
}

fn empty_body() -> Problem {
    Problem::new(ErrorCode::MalformedJson).detail("the body is empty")
}

/// Reads a whole body within the limits.
///
/// # Errors
/// 413 as soon as the length is known to be too large, 408 when it does not arrive in time, 400
/// when its framing is broken, 429 and 503 when too many are on their way.
async fn read_body<B>(
    mut body: B,
    limits: BodyLimits,
    client: ClientAddress,
) -> Result<Bytes, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_large = || {
        Problem::new(ErrorCode::BodyTooLarge)
            .detail(format!("the body is larger than {} bytes", limits.max_bytes))
    };
    // The length that the head declares, if it does.
    if body.size_hint().lower() > limits.max_bytes as u64 {
        return Err(too_large());
    }
    let broken = || {
        Problem::new(ErrorCode::MalformedJson)
            .detail("the body ended early or its framing is broken")
    };
    // A small body comes in one piece with its head. It needs no timer, and no copy.
    let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx))).await;
    let mut begun = Bytes::new();
    match first {
        Poll::Ready(None) => return Ok(begun),
        Poll::Ready(Some(Err(_))) => return Err(broken()),
        Poll::Ready(Some(Ok(frame))) => begun = frame.into_data().unwrap_or_default(),
        Poll::Pending => {}
    }
    if begun.len() > limits.max_bytes {
        return Err(too_large());
    }
    if body.is_end_stream() {
        return Ok(begun);
    }
    let rest = limits.max_bytes - begun.len();
    // The slot of the class is for those whose body is here; senders may be as slow as they like.
    let waiting = AwaitsBody::begin(client)?;
    // Few bodies come in pieces. What waits for them is not part of every join's future.
    let collect =
        Box::pin(tokio::time::timeout(limits.timeout, Limited::new(body, rest).collect()));
    let bytes = match collect.await {
        Ok(Ok(collected)) if begun.is_empty() => collected.to_bytes(),
        Ok(Ok(collected)) => [begun, collected.to_bytes()].concat().into(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(_)) => return Err(broken()),
        Err(_) => return Err(Problem::new(ErrorCode::RequestTimeout)),
    };
    waiting.end()?;
    Ok(bytes)
}

/// Parses one JSON document.
///
/// # Errors
/// See [`ApiJson`].
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let malformed = |detail: String| Problem::new(ErrorCode::MalformedJson).detail(detail);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(empty_body());
    }
    // The parser does not look at the encoding of fields that it skips.
    let text =
        std::str::from_utf8(bytes).map_err(|_| malformed("the body is not UTF-8".to_owned()))?;
    // A struct can also be read from an array of its fields; no request of ours is meant that way.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(match serde_json::from_str::<de::IgnoredAny>(text) {
            Ok(_) => {
                Problem::new(ErrorCode::InvalidField).detail("the body: expected a JSON object")
            }
            Err(error) => malformed(error.to_string()),
        });
    }
    // The plain way first: keeping track of the path costs as much as the parsing.
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Ok(value) => match deserializer.end() {
            Ok(()) => Ok(value),
            Err(error) => Err(malformed(error.to_string())),
        },
        Err(error) => {
            let inner = error.inner();
            if inner.classify() != serde_json::error::Category::Data {
                return Err(malformed(inner.to_string()));
            }
            // A wrong field in something that is not JSON to its end is not JSON first of all.
            if let Err(syntax) = serde_json::from_str::<de::IgnoredAny>(text) {
                return Err(malformed(syntax.to_string()));
            }
            let path = error.path().to_string();
            let path = if path == "." { "the body" } else { &path };
            Err(Problem::new(ErrorCode::InvalidField).detail(format!("{path}: {inner}")))
        }
    }
}

/// The path parameters of a route, all of them ids, in order: one id, or a pair of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathIds<T>(pub T);

/// One id, or a pair of ids.
pub trait Ids: Sized {
    /// What each of them names, for the description.
    const NAMES: &'static [&'static str];

    /// The ids in parameters, each a name and a text.
    ///
    /// # Errors
    /// The name of the first parameter that is no such id, or that there is none.
    fn read<'a>(params: &mut impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, &'a str>;
}

impl<T: Id> Ids for T {
    const NAMES: &'static [&'static str] = &[T::NAMES];

    fn read<'a>(params: &mut impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, &'a str> {
        let (name, text) = params.next().ok_or("the path")?;
        T::parse(text).ok_or(name)
    }
}

impl<A: Id, B: Id> Ids for (A, B) {
    const NAMES: &'static [&'static str] = &[A::NAMES, B::NAMES];

    fn read<'a>(params: &mut impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, &'a str> {
        Ok((A::read(params)?, B::read(params)?))
    }
}

impl<T: Ids> PathIds<T> {
    /// The ids in a path that fits the template of a route, where each is written as ids are.
    /// `None` is for the router to look at.
    pub(crate) fn of(path: &str, template: &str) -> Option<Self> {
        let (mut wanted, mut given) = (template.split('/'), path.split('/'));
        let mut fits = true;
        let mut params = std::iter::from_fn(|| {
            loop {
                match (wanted.next(), given.next()) {
                    (None, None) => return None,
                    (Some(name), Some(text)) if name.starts_with('{') => return Some((name, text)),
                    (Some(wanted), Some(given)) if wanted == given => {}
                    _ => {
                        fits = false;
                        return None;
                    }
                }
            }
        });
        let ids = T::read(&mut params).ok()?;
        // Looks at what stands behind the last id, too.
        let all_read = params.next().is_none();
        (all_read && fits).then_some(Self(ids))
    }
}

impl<S: Send + Sync, T: Ids> FromRequestParts<S> for PathIds<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| invalid_id("the path"))?;
        let (found, wanted) = (params.iter().count(), T::NAMES.len());
        if found != wanted {
            let cause = format!("a route with {found} path parameters takes {wanted} ids");
            return Err(Problem::internal(cause));
        }
        T::read(&mut params.iter()).map(Self).map_err(invalid_id)
    }
}

impl<T: Ids> Described for PathIds<T> {
    fn describe(description: &mut Description) {
        T::NAMES.iter().for_each(|names| description.path_id(names));
        description.errors(&[ErrorCode::InvalidId]);
    }
}

/// The only path parameter of a route, the name of a queue. Bytes that are no text name none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathQueue(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathQueue {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(_) => Err(Problem::new(ErrorCode::QueueNotFound)),
        }
    }
}

impl Described for PathQueue {
    fn describe(description: &mut Description) {
        description.path_queue();
        description.errors(&[ErrorCode::QueueNotFound]);
    }
}

fn invalid_id(name: &str) -> Problem {
    Problem::new(ErrorCode::InvalidId)
        .detail(format!("{name} must be a whole number from 1 to 9223372036854775807"))
}

/// A header that may come once.
///
/// # Errors
/// 400 `DUPLICATE_HEADER` where it comes several times, 400 `INVALID_HEADER` where it contains
/// anything but visible ASCII and spaces.
pub fn single_header<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::new(ErrorCode::DuplicateHeader)
            .detail(format!("the header {name} was sent several times")));
    }
    // Without a way out of the loop, it looks at many bytes at once.
    let visible = value.as_bytes().iter().fold(true, |ok, byte| ok & matches!(byte, b' '..=b'~'));
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) if visible => Ok(Some(text)),
        _ => Err(Problem::new(ErrorCode::InvalidHeader)
            .detail(format!("the header {name} contains other than visible ASCII"))),
    }
}

/// The values of the cookies with a name.
pub(super) fn cookies<'h>(
    headers: &'h HeaderMap,
    name: &'static str,
) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(COOKIE).into_iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let rest = pair.trim_ascii_start().strip_prefix(name.as_bytes())?;
        let value = rest.strip_prefix(b"=")?.trim_ascii();
        Some(value.strip_prefix(b"\"").and_then(|it| it.strip_suffix(b"\"")).unwrap_or(value))
    })
}

/// A field that may be left out, and is no `null`.
///
/// # Errors
/// Those of the value.
pub(super) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// An idempotency key: 1 to 255 visible ASCII characters, bare or as the draft's quoted string.
/// Both forms of the same key are the same key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key of a request; none where it has no such header.
    ///
    /// # Errors
    /// 400 `DUPLICATE_HEADER` or `INVALID_HEADER`.
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let Some(text) = single_header(headers, &IDEMPOTENCY_KEY)? else { return Ok(None) };
        Self::parse(text).map(Some).ok_or_else(|| {
            Problem::new(ErrorCode::InvalidHeader).detail(
                "the header idempotency-key must be 1 to 255 visible ASCII characters, bare or quoted",
            )
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let key = match text.strip_prefix('"') {
            None => text.to_owned(),
            Some(rest) => {
                let mut key = String::with_capacity(rest.len());
                let mut chars = rest.chars();
                loop {
                    match chars.next()? {
                        '"' => break,
                        // RFC 8941: only these two may be escaped.
                        '\\' => key.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
                        other => key.push(other),
                    }
                }
                // Parameters behind the string are not part of the draft.
                if chars.next().is_some() {
                    return None;
                }
                key
            }
        };
        let fits = (1..=IDEMPOTENCY_KEY_MAX).contains(&key.len())
            && key.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then_some(Self(key))
    }

    /// The key without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MaybeIdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        IdempotencyKey::from_headers(&parts.headers).map(Self)
    }
}

impl Described for MaybeIdempotencyKey {
    fn describe(description: &mut Description) {
        description.header(
            IDEMPOTENCY_KEY_HEADER,
            "Same key and body: the first answer again",
            Some("^[!#-~][!-~]{0,254}$"),
        );
        description.errors(&[
            ErrorCode::DuplicateHeader,
            ErrorCode::IdempotencyInFlight,
            ErrorCode::IdempotencyKeyReused,
        ]);
    }
}

/// Extractor for a request that may carry an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaybeIdempotencyKey(pub Option<IdempotencyKey>);

/// Extractor for a join that may carry an idempotency key. Nothing of it is stored, so it is never in
/// conflict: the key counts for its user and queue, for some minutes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinKey(pub Option<IdempotencyKey>);

impl<S: Send + Sync> FromRequestParts<S> for JoinKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        IdempotencyKey::from_headers(&parts.headers).map(Self)
    }
}

impl Described for JoinKey {
    fn describe(description: &mut Description) {
        description.header(
            IDEMPOTENCY_KEY_HEADER,
            "Same key, user and queue within ten minutes: the same ticket again",
            Some("^[!#-~][!-~]{0,254}$"),
        );
        description.errors(&[ErrorCode::DuplicateHeader]);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use axum::http::HeaderValue;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Sample {
        user_id: WireId<UserId>,
        #[serde(default)]
        seat_ids: Vec<WireId<SeatId>>,
    }

    fn id(json: &str) -> Option<i64> {
        serde_json::from_str::<WireId<UserId>>(json).ok().map(|id| id.0.get())
    }

    fn amount(json: &str) -> Option<WireAmount> {
        serde_json::from_str(json).ok()
    }

    fn sample(body: &[u8]) -> Result<Sample, (ErrorCode, String)> {
        parse_json(body)
            .map_err(|problem: Problem| (problem.code(), problem.detail_text().to_owned()))
    }

    #[test]
    fn ids_in_a_path_are_read_where_it_fits_the_template() {
        type Pair = PathIds<(ConcertId, SessionId)>;
        let of = |path| {
            let PathIds((concert, session)) = Pair::of(path, "/a/{id}/b/{other}/c")?;
            Some((concert.get(), session.get()))
        };
        assert_eq!(of("/a/7/b/9223372036854775807/c"), Some((7, i64::MAX)));
        for path in [
            "/a/7/b/8",
            "/a/7/b/8/c/",
            "/a/7/b/8/d",
            "/a/07/b/8/c",
            "/a//b/8/c",
            "/a/%37/b/8/c",
            "/a/7/b/9223372036854775808/c",
            "/a/7/b/8",
            "/a/7/b",
            "/x/7/b/8/c",
            "a/7/b/8/c",
            "",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
        assert_eq!(PathIds::<ConcertId>::of("/a/7/b/8/c", "/a/{id}/b/{other}/c"), None);
        assert_eq!(Pair::of("/a/7", "/a/{id}"), None);
    }

    #[test]
    fn ids_are_positive_numbers_or_such_strings() {
        for (json, value) in [
            ("1", 1),
            ("\"17\"", 17),
            ("17.0", 17),
            ("1e3", 1_000),
            ("9223372036854775807", i64::MAX),
            ("\"9223372036854775807\"", i64::MAX),
        ] {
            assert_eq!(id(json), Some(value), "{json}");
        }
        for json in [
            "0",
            "-1",
            "9223372036854775808",
            "18446744073709551616",
            "\"9223372036854775808\"",
            "\"abc\"",
            "null",
            "1.5",
            "1e19",
            "0.0",
            "\"\"",
            "\"+1\"",
            "\" 1\"",
            "\"1 \"",
            "\"01\"",
            "\"0\"",
            "\"-1\"",
            "\"1e3\"",
            "\"١\"",
            "true",
            "[]",
            "[1]",
            "{}",
        ] {
            assert_eq!(id(json), None, "{json}");
        }
    }

    #[test]
    fn amounts_tell_out_of_range_from_not_an_integer() {
        use WireAmount::{OutOfRange, Value};
        for (json, value) in [
            ("5", Value(5)),
            ("-5", Value(-5)),
            ("0", Value(0)),
            ("10.0", Value(10)),
            ("1e3", Value(1_000)),
            ("1e30", OutOfRange),
            ("\"0\"", Value(0)),
            ("\"-12\"", Value(-12)),
            ("9223372036854775807", Value(i64::MAX)),
            ("9223372036854775808", OutOfRange),
            ("-9223372036854775809", OutOfRange),
            ("100000000000000000000000000000000", OutOfRange),
            ("\"100000000000000000000000000000000\"", OutOfRange),
        ] {
            assert_eq!(amount(json), Some(value), "{json}");
        }
        for json in ["1.5", "\"1.5\"", "\"\"", "\"-\"", "\"+1\"", "\"01\"", "null", "true", "[1]"] {
            assert_eq!(amount(json), None, "{json}");
        }
    }

    #[test]
    fn wrong_fields_are_named() {
        let parsed =
            sample(br#"{"userId": "17", "seatIds": [1, "2"], "more": {"x": [1]}}"#).unwrap();
        assert_eq!((parsed.user_id.0.get(), parsed.seat_ids.len()), (17, 2));
        for (body, start) in [
            (r#"{"userId": 1, "seatIds": [1, 0]}"#, "seatIds[1]: "),
            (r#"{"userId": null}"#, "userId: "),
            (r#"{"seatIds": []}"#, "the body: missing field `userId`"),
            (r#"{"userId": 1, "userId": 2}"#, "userId: duplicate field"),
            (r#"[]"#, "the body: "),
            (r#"3"#, "the body: "),
        ] {
            let (code, detail) = sample(body.as_bytes()).unwrap_err();
            assert_eq!(code, ErrorCode::InvalidField, "{body}: {detail}");
            assert!(
                detail.starts_with(start)
                    || start.contains("duplicate") && detail.contains("duplicate field"),
                "{body}: {detail}"
            );
        }
    }

    #[test]
    fn what_is_not_json_is_malformed() {
        let nested = format!("{{\"userId\": 1, \"x\": {}", "[".repeat(100_000));
        let deep = format!("{{\"userId\": {}1{}}}", "[".repeat(200), "]".repeat(200));
        for body in [
            b"".as_slice(),
            b"  \n",
            b"{",
            b"nonsense",
            br#"{"userId": 1} x"#,
            br#"{"userId": 1}{"userId": 1}"#,
            br#"{"userId": 01}"#,
            br#"{"userId": NaN}"#,
            b"{\"userId\": 1, \"x\": \"\xff\"}",
            b"\xef\xbb\xbf{\"userId\": 1}",
            br#"{"userId": 0, "#,
            nested.as_bytes(),
        ] {
            let (code, detail) = sample(body).unwrap_err();
            assert_eq!(
                code,
                ErrorCode::MalformedJson,
                "{}: {detail}",
                String::from_utf8_lossy(body)
            );
        }
        assert!(sample(deep.as_bytes()).is_err());
    }

    #[test]
    fn a_header_comes_once_and_in_ascii() {
        let name = HeaderName::from_static("queue-token");
        let mut headers = HeaderMap::new();
        assert_eq!(single_header(&headers, &name), Ok(None));
        headers.insert(&name, HeaderValue::from_static("abc"));
        assert_eq!(single_header(&headers, &name), Ok(Some("abc")));
        headers.append(&name, HeaderValue::from_static("abc"));
        assert_eq!(single_header(&headers, &name).unwrap_err().code(), ErrorCode::DuplicateHeader);
        for bad in [b"a\xff".as_slice(), "é".as_bytes(), b"a\tb"] {
            headers.insert(&name, HeaderValue::from_bytes(bad).unwrap());
            assert_eq!(
                single_header(&headers, &name).unwrap_err().code(),
                ErrorCode::InvalidHeader
            );
        }
    }

    #[test]
    fn idempotency_keys_bare_and_quoted() {
        let key = |text: &str| IdempotencyKey::parse(text).map(|key| key.0);
        assert_eq!(key("abc-1").as_deref(), Some("abc-1"));
        assert_eq!(key("\"abc-1\"").as_deref(), Some("abc-1"));
        assert_eq!(key(r#""a\"b\\c""#).as_deref(), Some(r#"a"b\c"#));
        assert_eq!(key(&"x".repeat(255)).map(|key| key.len()), Some(255));
        let long = "x".repeat(256);
        for bad in ["", "\"\"", "\"abc", "\"a\"b", "\"a\";p=1", r#""a\x""#, "a b", long.as_str()] {
            assert_eq!(key(bad), None, "{bad}");
        }
    }

    #[test]
    fn content_types() {
        let check = |value: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            }
            check_content_type(&headers, &Body::from("{}")).is_ok()
        };
        for good in
            ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"]
        {
            assert!(check(Some(good)), "{good}");
        }
        for bad in [None, Some(""), Some("text/plain"), Some("application/jsonx"), Some("json")] {
            assert!(!check(bad), "{bad:?}");
        }
    }

    #[test]
    fn cookies_are_found_among_others() {
        let mut headers = HeaderMap::new();
        for line in
            ["a=1; __Host-boxoffice=x.y; __Host-boxoffice-login=z", "__Host-boxoffice=\"q\"; b"]
        {
            headers.append(COOKIE, HeaderValue::from_static(line));
        }
        headers.append(COOKIE, HeaderValue::from_bytes(b"__Host-boxoffice=\xff;;=;").unwrap());
        let found: Vec<_> = cookies(&headers, "__Host-boxoffice").collect();
        assert_eq!(found, [&b"x.y"[..], b"q", b"\xff"]);
        assert_eq!(cookies(&headers, "__Host-boxoffice-login").next(), Some(&b"z"[..]));
    }
}
