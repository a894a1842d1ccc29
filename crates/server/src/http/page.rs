//! Which part of a list is asked for.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::describe::{Described, Description};
use super::problem::{ErrorCode, Problem};

/// Rows of a page where nobody says how many.
const LIMIT: u32 = 20;
/// The most rows of a page.
const LIMIT_MAX: u32 = 100;

/// A page of a list: `?limit=&after=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// The most rows.
    pub limit: u32,
    /// The id of the last row of the page before.
    pub after: Option<i64>,
}

impl<S: Sync> FromRequestParts<S> for Page {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

impl Page {
    fn parse(query: &str) -> Result<Self, Problem> {
        let mut page = Self { limit: LIMIT, after: None };
        let mut seen = (false, false);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // Only digits, so that there is nothing to be unescaped.
            let number = value
                .parse::<i64>()
                .ok()
                .filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()));
            match name {
                "limit" if !std::mem::replace(&mut seen.0, true) => {
                    page.limit = number
                        .and_then(|limit| u32::try_from(limit).ok())
                        .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                        .ok_or_else(|| invalid(format!("limit is from 1 to {LIMIT_MAX}")))?;
                }
                "after" if !std::mem::replace(&mut seen.1, true) => {
                    let id = number.filter(|id| *id > 0);
                    page.after = Some(id.ok_or_else(|| invalid("after is an id"))?);
                }
                "limit" | "after" => return Err(invalid(format!("{name} came twice"))),
                _ => return Err(invalid("only limit and after are known")),
            }
        }
        Ok(page)
    }
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::InvalidQuery).detail(detail.into())
}

impl Described for Page {
    fn describe(description: &mut Description) {
        description.query_number("limit", "The most rows", LIMIT, Some(LIMIT_MAX));
        description.query_number("after", "The id of the last row of the page before", 1, None);
        description.errors(&[ErrorCode::InvalidQuery]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn pages() {
        let page = |limit, after| Page { limit, after };
        for (query, expected) in [
            ("", page(20, None)),
            ("limit=1", page(1, None)),
            ("limit=100&after=17", page(100, Some(17))),
            ("&after=9223372036854775807&", page(20, Some(i64::MAX))),
        ] {
            assert_eq!(Page::parse(query).unwrap(), expected, "{query}");
        }
        for query in [
            "limit=0",
            "limit=101",
            "limit=+1",
            "limit=",
            "limit",
            "limit=1&limit=1",
            "after=0",
            "after=-1",
            "after=x",
            "after=9223372036854775808",
            "page=1",
            "limit=%31",
        ] {
            assert_eq!(Page::parse(query).unwrap_err().code(), ErrorCode::InvalidQuery, "{query}");
        }
    }
}
