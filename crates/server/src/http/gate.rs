//! The gate: proxies in front of any site ask whether a visitor may pass (nginx `auth_request`, Caddy and
//! Traefik `forward_auth`, haproxy). It reads memory only.
//!
//! Where a visitor is to come back to is what the proxy says that they asked for. Anybody may have made that
//! up: so it is a path, and no way to another site unless the configuration names that.

use std::convert::Infallible;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::{AUTHORIZATION, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use boxoffice_domain::ids::QueueName;
use percent_encoding::{AsciiSet, utf8_percent_encode};

use super::describe::{Described, Description};
use super::extract::cookies;
use super::problem::{ErrorCode, Problem};
use crate::app::{App, AppState};
use crate::config::{GateConfig, QUEUE_PLACE};
use crate::sign_in::RESERVED;

/// The cookie that has the pass.
const PASS_COOKIE: &str = "boxoffice-pass";
/// So many of a visitor's passes are tried. They may have some for several paths of the site.
const TRIED_MAX: usize = 8;
/// The longest path to come back to, in bytes.
const BACK_BYTES_MAX: usize = 2_048;

const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A visitor, as their proxy tells of them.
pub(super) struct Visitor {
    queue: String,
    headers: HeaderMap,
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        // What is no text is no queue.
        let queue = Path::from_request_parts(parts, state).await;
        let Path(queue): Path<String> = queue.unwrap_or_else(|_| Path(String::new()));
        Ok(Self { queue, headers: parts.headers.clone() })
    }
}

impl Described for Visitor {
    fn describe(description: &mut Description) {
        description.path_queue();
        description.cookie(PASS_COOKIE, "The pass; or as a bearer token in `Authorization`");
        let asked = "What the visitor has asked for: path and query";
        description.header("X-Forwarded-Uri", asked, None);
        description.header("X-Original-URI", asked, None);
        description.header("X-Forwarded-Host", "At which host, for `gate.sites`", None);
        description.header("X-Forwarded-Proto", "By `http` or `https`, for `gate.sites`", None);
        description.errors(&[ErrorCode::PassMissing, ErrorCode::PassInvalid]);
    }
}

pub(super) async fn ask(State(app): State<AppState>, visitor: Visitor) -> Response<Body> {
    answer(&app, &visitor.queue, &visitor.headers, Instant::now())
}

/// The answer to a proxy that has asked at `begun`: 204, or why not and where to wait.
pub(super) fn answer(
    app: &App,
    queue: &str,
    headers: &HeaderMap,
    begun: Instant,
) -> Response<Body> {
    let known = app.sequencer.queue(queue);
    let mut code = ErrorCode::PassMissing;
    for pass in presented(headers).take(TRIED_MAX) {
        let now = app.clock.at(begun);
        if known.as_ref().is_some_and(|queue| app.good_pass(pass, queue, now).is_some()) {
            let mut passed = Response::new(Body::empty());
            *passed.status_mut() = StatusCode::NO_CONTENT;
            return passed;
        }
        code = ErrorCode::PassInvalid;
    }
    let mut refused = Problem::new(code).into_response();
    // It is visible ASCII, and so is a value.
    if let Ok(address) = HeaderValue::try_from(waiting_address(&app.config.gate, queue, headers)) {
        refused.headers_mut().insert(LOCATION, address);
    }
    refused
}

/// What may be a pass: the cookies of that name, then bearer tokens. The site may have bearer tokens of its
/// own, so one that is no pass takes nothing away from a cookie.
fn presented(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let bearers = headers.get_all(AUTHORIZATION).into_iter().filter_map(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked("bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
    });
    cookies(headers, PASS_COOKIE).chain(bearers).filter_map(|pass| std::str::from_utf8(pass).ok())
}

/// Where to wait, with what to wait for and where to come back to.
fn waiting_address(gate: &GateConfig, queue: &str, headers: &HeaderMap) -> String {
    // A name that no queue can have is not told on.
    let queue = QueueName::new(queue);
    let named = queue.as_ref().map_or("", QueueName::as_str);
    let mut address = gate.waiting_url.replace(QUEUE_PLACE, named);
    address.push(if address.contains('?') { '&' } else { '?' });
    if gate.waiting_url.contains(QUEUE_PLACE) {
        address.push_str("return=");
    } else {
        if !named.is_empty() {
            address.push_str("queue=");
            address.push_str(named);
            address.push('&');
        }
        address.push_str("back=");
    }
    escape(site(gate, headers).unwrap_or_default(), &mut address);
    escape(path(headers).unwrap_or("/"), &mut address);
    address
}

/// The site that the visitor has asked, if it may be gone back to by its address.
fn site<'g>(gate: &'g GateConfig, headers: &HeaderMap) -> Option<&'g str> {
    if gate.sites.is_empty() {
        return None;
    }
    let host = single(headers, &X_FORWARDED_HOST)?;
    let scheme = single(headers, &X_FORWARDED_PROTO)?;
    let asked = format!("{scheme}://{host}");
    gate.sites.iter().find(|site| **site == asked).map(String::as_str)
}

/// The path that the visitor has asked for, with its query, if it leads nowhere else than there.
fn path(headers: &HeaderMap) -> Option<&str> {
    let asked = match headers.contains_key(X_FORWARDED_URI) {
        true => single(headers, &X_FORWARDED_URI)?,
        false => single(headers, &X_ORIGINAL_URI)?,
    };
    is_plain_path(asked).then_some(asked)
}

/// Whether this is a path, with its query, that leads nowhere else than there.
pub(super) fn is_plain_path(asked: &str) -> bool {
    let path = asked.split(['?', '#']).next().unwrap_or_default();
    let is_step = |part: &str| {
        let dots = part.to_ascii_lowercase().replace("%2e", ".");
        dots == "." || dots == ".."
    };
    // Browsers take a backslash for a slash, leave out what is not visible, and have taken every step before
    // they ask. What is left of `//host` after that would be a host to them.
    asked.len() <= BACK_BYTES_MAX
        && asked.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        && asked.starts_with('/')
        && !asked.starts_with("//")
        && !path.split('/').any(is_step)
}

/// A header that came once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    std::str::from_utf8(value.as_bytes()).ok()
}

/// Appends a text as a value of a query. A path stays readable in it.
fn escape(text: &str, query: &mut String) {
    const ESCAPED: &AsciiSet = &RESERVED.remove(b'/');
    query.extend(utf8_percent_encode(text, ESCAPED));
}

#[cfg(test)]
mod tests {
    use axum::http::header::COOKIE;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn asked(uri: &str) -> String {
        waiting_address(&GateConfig::default(), "main", &headers(&[("x-forwarded-uri", uri)]))
    }

    #[test]
    fn whoever_waits_comes_back_to_what_they_asked_for() {
        for (uri, back) in [
            ("/", "/"),
            ("/shop", "/shop"),
            ("/shop/?seat=1&row=B", "/shop/%3Fseat%3D1%26row%3DB"),
            ("/a//b/...", "/a//b/..."),
            ("/%C3%B6", "/%25C3%25B6"),
            ("/?q=../../x", "/%3Fq%3D../../x"),
        ] {
            assert_eq!(asked(uri), format!("/wait/main?return={back}"), "{uri}");
        }
        let other =
            GateConfig { waiting_url: "https://wait.example/?a=1".into(), ..GateConfig::default() };
        let address = waiting_address(&other, "vip", &headers(&[("x-original-uri", "/x")]));
        assert_eq!(address, "https://wait.example/?a=1&queue=vip&back=/x");
        assert_eq!(
            waiting_address(&other, "&x=1", &headers(&[])),
            "https://wait.example/?a=1&back=/"
        );
        let ours = GateConfig {
            waiting_url: "https://wait.example/wait/{queue}?lang=ko".into(),
            ..GateConfig::default()
        };
        let address = waiting_address(&ours, "vip", &headers(&[("x-original-uri", "/x")]));
        assert_eq!(address, "https://wait.example/wait/vip?lang=ko&return=/x");
        assert_eq!(
            waiting_address(&GateConfig::default(), "&x=1", &headers(&[])),
            "/wait/?return=/"
        );
    }

    #[test]
    fn nobody_is_sent_to_another_site() {
        for uri in [
            "",
            "shop",
            "https://evil.example/",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "/\t/evil.example",
            "/a\\..\\b",
            "/.//evil.example",
            "/a/..//evil.example",
            "/%2e//evil.example",
            "/a/.%2E//evil.example",
            "/a b",
            "/\u{f6}",
            &format!("/{}", "x".repeat(BACK_BYTES_MAX)),
        ] {
            assert_eq!(asked(uri), "/wait/main?return=/", "{uri}");
        }
        // Said twice, it is not believed.
        let twice = headers(&[
            ("x-forwarded-uri", "/a"),
            ("x-forwarded-uri", "/b"),
            ("x-original-uri", "/c"),
        ]);
        assert_eq!(path(&twice), None);
    }

    #[test]
    fn a_site_is_named_where_the_configuration_names_it() {
        let gate =
            GateConfig { sites: vec!["https://shop.example".into()], ..GateConfig::default() };
        let back = |proto: &str, host: &str| {
            let headers = headers(&[
                ("x-forwarded-proto", proto),
                ("x-forwarded-host", host),
                ("x-forwarded-uri", "/a"),
            ]);
            waiting_address(&gate, "main", &headers).replace("/wait/main?return=", "")
        };
        assert_eq!(back("https", "shop.example"), "https%3A//shop.example/a");
        for (proto, host) in [
            ("http", "shop.example"),
            ("https", "evil.example"),
            ("https", "shop.example.evil.example"),
            ("https", ""),
        ] {
            assert_eq!(back(proto, host), "/a", "{proto} {host}");
        }
    }

    #[test]
    fn a_pass_is_found_among_other_cookies() {
        let found = |pairs: &[(&str, &str)]| -> Vec<String> {
            presented(&headers(pairs)).map(str::to_owned).collect()
        };
        assert_eq!(found(&[("cookie", "a=1; boxoffice-pass=x.y.z;b=2")]), ["x.y.z"]);
        assert_eq!(found(&[("cookie", "boxoffice-pass=\"x\"; boxoffice-pass = y")]), ["x"]);
        assert_eq!(
            found(&[("cookie", "boxoffice-pass=1"), ("cookie", "boxoffice-pass=2")]),
            ["1", "2"]
        );
        let both = [("authorization", "bEarer  3"), ("cookie", "boxoffice-pass=1")];
        assert_eq!(found(&both), ["1", "3"]);
        for none in
            ["xboxoffice-pass=1", "boxoffice-passing=1", "boxoffice-pass", "BOXOFFICE-PASS=1"]
        {
            assert_eq!(found(&[("cookie", none)]), [""; 0], "{none}");
        }
        assert_eq!(found(&[("authorization", "Basic abc"), ("authorization", "Bearer")]), [""; 0]);
        let mut odd = HeaderMap::new();
        odd.insert(
            COOKIE,
            HeaderValue::from_bytes(b"boxoffice-pass=\xff\xfe; boxoffice-pass=ok").unwrap(),
        );
        assert_eq!(presented(&odd).collect::<Vec<_>>(), ["ok"]);
    }
}
