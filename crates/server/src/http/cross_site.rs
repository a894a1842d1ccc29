//! Whether a request that a cookie vouches for was sent by a page of ours: browsers send cookies along
//! whoever made the request.
//!
//! What does not belong here: whose cookie it is.

use axum::extract::FromRequestParts;
use axum::http::header::{HOST, HeaderName, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method};

use super::describe::{Described, Description};
use super::problem::{ErrorCode, Problem};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Lets a request pass that changes nothing, or that comes from a page of the same origin. To be asked where a cookie
/// stands for who asks: other headers no browser sends by itself. `own` is the origin of the pages where that is
/// configured; else it is told by the host that was asked.
///
/// # Errors
/// [`ErrorCode::CrossSite`] for any other request; also where the browser does not tell where it comes
/// from.
pub(super) fn check(
    method: &Method,
    headers: &HeaderMap,
    own: Option<&str>,
) -> Result<(), Problem> {
    if method.is_safe() || is_same_origin(headers, own) {
        return Ok(());
    }
    Err(Problem::new(ErrorCode::CrossSite))
}

/// A request that [`check`] has let pass.
pub(super) struct OwnPage;

impl<S: Send + Sync> FromRequestParts<S> for OwnPage {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        check(&parts.method, &parts.headers, None).map(|()| Self)
    }
}

impl Described for OwnPage {
    fn describe(description: &mut Description) {
        description.errors(&[ErrorCode::CrossSite]);
    }
}

fn is_same_origin(headers: &HeaderMap, own: Option<&str>) -> bool {
    if headers.contains_key(SEC_FETCH_SITE) {
        return only(headers, &SEC_FETCH_SITE).is_some_and(|site| site == "same-origin");
    }
    // A browser of old. Its scheme is that of whoever ends TLS, so it is not compared.
    let origin = only(headers, &ORIGIN).and_then(|origin| origin.to_str().ok());
    if own.is_some() {
        return origin == own;
    }
    let host = only(headers, &HOST).and_then(|host| host.to_str().ok());
    match (origin.and_then(|origin| origin.split_once("://")), host) {
        (Some((_, origin)), Some(host)) => !host.is_empty() && origin.eq_ignore_ascii_case(host),
        _ => false,
    }
}

/// The value of a header that comes once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_let_in(method: &Method, lines: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        match check(method, &headers, None) {
            Ok(()) => true,
            Err(problem) => {
                assert_eq!(problem.code(), ErrorCode::CrossSite);
                false
            }
        }
    }

    #[test]
    fn what_changes_nothing_may_come_from_anywhere() {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert!(is_let_in(&method, &[("sec-fetch-site", "cross-site")]), "{method}");
        }
    }

    #[test]
    fn what_changes_something_comes_from_a_page_of_ours() {
        let host = ("host", "box.example:8443");
        for method in [Method::POST, Method::PATCH, Method::DELETE, Method::PUT] {
            for (lines, expected) in [
                (&[] as &[_], false),
                (&[host], false),
                (&[("sec-fetch-site", "same-origin")], true),
                (&[("sec-fetch-site", "same-site")], false),
                (&[("sec-fetch-site", "cross-site")], false),
                (&[("sec-fetch-site", "none")], false),
                (&[("sec-fetch-site", "Same-Origin")], false),
                (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], false),
                // What the browser says of the site outweighs the rest.
                (
                    &[
                        ("sec-fetch-site", "cross-site"),
                        host,
                        ("origin", "https://box.example:8443"),
                    ],
                    false,
                ),
                (
                    &[("sec-fetch-site", "same-origin"), host, ("origin", "https://evil.example")],
                    true,
                ),
                (&[host, ("origin", "https://box.example:8443")], true),
                (&[host, ("origin", "http://BOX.example:8443")], true),
                (&[host, ("origin", "https://box.example")], false),
                (&[host, ("origin", "https://box.example:8443.evil.example")], false),
                (&[host, ("origin", "https://evil.example/box.example:8443")], false),
                (&[host, ("origin", "null")], false),
                (&[host, ("origin", "box.example:8443")], false),
                (&[("host", ""), ("origin", "https://")], false),
                (&[("origin", "https://box.example:8443")], false),
                (
                    &[
                        host,
                        ("origin", "https://box.example:8443"),
                        ("origin", "https://evil.example"),
                    ],
                    false,
                ),
            ] {
                assert_eq!(is_let_in(&method, lines), expected, "{method} {lines:?}");
            }
        }
    }
}
