//! Lists in pages: which part is asked for, and the answer as JSON or as CSV.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE, LINK, VARY};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::describe::{Described, Description};
use super::extract::single_header;
use super::problem::{ErrorCode, Problem};
use super::reply::json;

/// How long pages are.
struct Lengths {
    /// Where none is asked for.
    usual: u32,
    /// The most entries.
    max: u32,
}

/// Pages of lists for everybody.
const PUBLIC: Lengths = Lengths { usual: 20, max: 100 };
/// Pages of lists for operators.
const OPERATORS: Lengths = Lengths { usual: 100, max: 1_000 };

/// Which part of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// At most so many.
    pub(super) limit: u32,
    /// Those behind the one with this id.
    pub(super) after: Option<i64>,
}

impl<S: Send + Sync> FromRequestParts<S> for Section {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let SectionQuery { limit, after } = query(&parts.uri)?;
        Self::new(&PUBLIC, limit, after)
    }
}

impl Described for Section {
    fn describe(description: &mut Description) {
        Self::describe_as(&PUBLIC, description);
    }
}

impl Section {
    fn new(lengths: &Lengths, limit: Option<u32>, after: Option<i64>) -> Result<Self, Problem> {
        let invalid = |what: String| Problem::new(ErrorCode::InvalidQuery).detail(what);
        let limit = limit.unwrap_or(lengths.usual);
        if !(1..=lengths.max).contains(&limit) {
            return Err(invalid(format!("limit must be from 1 to {}", lengths.max)));
        }
        if after.is_some_and(|after| after < 1) {
            return Err(invalid("after must be an id from an earlier page".into()));
        }
        Ok(Self { limit, after })
    }

    /// What `after` is to be for the page behind these entries; none behind the last.
    pub(super) fn next<T>(&self, entries: &[T], id: impl Fn(&T) -> i64) -> Option<i64> {
        entries.last().filter(|_| entries.len() >= self.limit as usize).map(id)
    }

    fn describe_as(lengths: &Lengths, description: &mut Description) {
        let Lengths { usual, max } = *lengths;
        let most = format!("At most so many; {usual} where it is left out");
        description.query_number("limit", &most, usual, 1..=max.into());
        let behind = "Those behind the entry with this id: `next` of the page before";
        description.query_number("after", behind, 1, 1..=i64::MAX);
        description.errors(&[ErrorCode::InvalidQuery]);
    }
}

/// Which part of a list for operators is asked for, and how it is to be written.
pub(super) struct Page {
    /// Which part.
    pub(super) section: Section,
    csv: bool,
    path: String,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct SectionQuery {
    limit: Option<u32>,
    after: Option<i64>,
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let SectionQuery { limit, after } = query(&parts.uri)?;
        Self::new(parts, limit, after)
    }
}

/// Reads the query of an address.
///
/// # Errors
/// 400 where it has what is not known, or what makes no sense.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    let invalid = |error: axum::extract::rejection::QueryRejection| {
        Problem::new(ErrorCode::InvalidQuery).detail(error.body_text())
    };
    axum::extract::Query::try_from_uri(uri).map(|found| found.0).map_err(invalid)
}

impl Page {
    pub(super) fn new(
        parts: &Parts,
        limit: Option<u32>,
        after: Option<i64>,
    ) -> Result<Self, Problem> {
        let section = Section::new(&OPERATORS, limit, after)?;
        let csv = wants_csv(&parts.headers)?;
        Ok(Self { section, csv, path: parts.uri.path().to_owned() })
    }

    /// The page as it was asked for. `next` is what `after` is to be for the page behind it. `extra` is
    /// what else stood in the query.
    pub(super) fn answer<T: Serialize>(
        &self,
        name: &'static str,
        items: &[T],
        next: Option<i64>,
        extra: &str,
    ) -> Response<Body> {
        let mut response = if self.csv {
            match csv_text(items) {
                Ok(text) => csv(name, text),
                Err(error) => {
                    return axum::response::IntoResponse::into_response(Problem::internal(error));
                }
            }
        } else {
            json(StatusCode::OK, &serde_json::json!({ name: items, "next": next }))
        };
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("accept"));
        if let Some(next) = next {
            let (path, limit) = (&self.path, self.section.limit);
            let link = format!("<{path}?limit={limit}&after={next}{extra}>; rel=\"next\"");
            if let Ok(link) = HeaderValue::from_str(&link) {
                headers.insert(LINK, link);
            }
        }
        response
    }
}

impl Described for Page {
    fn describe(description: &mut Description) {
        Section::describe_as(&OPERATORS, description);
        description.errors(&[ErrorCode::DuplicateHeader]);
    }
}

/// Whether the client asks for CSV rather than for JSON.
fn wants_csv(headers: &HeaderMap) -> Result<bool, Problem> {
    let Some(accept) = single_header(headers, &ACCEPT)? else { return Ok(false) };
    let quality = |wanted: &str| {
        accept
            .split(',')
            .filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let is_it = parts.next()?.eq_ignore_ascii_case(wanted);
                let quality = parts.find_map(|part| part.strip_prefix("q=")).map(str::parse);
                is_it.then(|| quality.and_then(Result::ok).unwrap_or(1.0_f32))
            })
            .fold(0.0, f32::max)
    };
    let csv = quality("text/csv");
    Ok(csv > 0.0 && csv >= quality("application/json"))
}

fn csv(name: &str, text: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    if let Ok(file) = HeaderValue::from_str(&format!("attachment; filename=\"{name}.csv\"")) {
        headers.insert(CONTENT_DISPOSITION, file);
    }
    response
}

/// The items as a table: their fields are its columns. A byte order mark tells Excel that it is UTF-8.
fn csv_text<T: Serialize>(items: &[T]) -> Result<Vec<u8>, String> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer("\u{feff}".as_bytes().to_vec());
    let Some(first) = items.first() else {
        return writer.into_inner().map_err(|error| error.to_string());
    };
    let columns = columns_of(first)?;
    writer.write_record(&columns).map_err(|error| error.to_string())?;
    for item in items {
        let fields = serde_json::to_value(item).map_err(|error| error.to_string())?;
        let cells = columns.iter().map(|column| match fields.get(column) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => harmless(text),
            Some(other) => other.to_string(),
        });
        writer.write_record(cells).map_err(|error| error.to_string())?;
    }
    writer.into_inner().map_err(|error| error.to_string())
}

/// The names of an item's fields, in their order.
fn columns_of<T: Serialize>(item: &T) -> Result<Vec<String>, String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.serialize(item).map_err(|error| error.to_string())?;
    let text = writer.into_inner().map_err(|error| error.to_string())?;
    let mut reader = csv::Reader::from_reader(&text[..]);
    let columns = reader.headers().map_err(|error| error.to_string())?;
    Ok(columns.iter().map(str::to_owned).collect())
}

/// A text that a spreadsheet shows, and does not calculate.
fn harmless(text: &str) -> String {
    match text.chars().next() {
        Some('=' | '+' | '-' | '@' | '\t' | '\r') => format!("'{text}"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Row {
        number: i64,
        name: &'static str,
        until: Option<&'static str>,
    }

    #[test]
    fn a_table_is_quoted_and_nothing_in_it_is_calculated() {
        let row = |number, name| Row { number, name, until: None };
        let rows = [
            row(1, "=1+1"),
            row(-2, "say \"hi\", twice"),
            row(3, "서울 콘서트"),
            row(4, "+x"),
            row(5, "-x"),
            row(6, "@x"),
            row(7, "\tx"),
            row(8, "\rx"),
            row(9, "x=1"),
            row(10, "a\r\nb"),
        ];
        let text = String::from_utf8(csv_text(&rows).unwrap()).unwrap();
        assert_eq!(
            text,
            "\u{feff}number,name,until\r\n1,'=1+1,\r\n-2,\"say \"\"hi\"\", twice\",\r\n3,서울 콘서트,\r\n\
             4,'+x,\r\n5,'-x,\r\n6,'@x,\r\n7,'\tx,\r\n8,\"'\rx\",\r\n9,x=1,\r\n10,\"a\r\nb\",\r\n"
        );
    }

    #[test]
    fn sections() {
        let parsed = |text: &str| {
            let uri = format!("/list?{text}").parse().unwrap();
            let SectionQuery { limit, after } = query(&uri)?;
            Section::new(&PUBLIC, limit, after)
        };
        let section = |limit, after| Section { limit, after };
        for (query, expected) in [
            ("", section(20, None)),
            ("limit=1", section(1, None)),
            ("limit=%31", section(1, None)),
            ("limit=100&after=17", section(100, Some(17))),
            ("&after=9223372036854775807&", section(20, Some(i64::MAX))),
        ] {
            assert_eq!(parsed(query).unwrap(), expected, "{query}");
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
        ] {
            assert_eq!(parsed(query).unwrap_err().code(), ErrorCode::InvalidQuery, "{query}");
        }
    }

    #[test]
    fn csv_is_for_those_who_prefer_it() {
        for (accept, wanted) in [
            ("text/csv", true),
            ("application/json", false),
            ("*/*", false),
            ("text/csv, application/json;q=0.5", true),
            ("text/csv;q=0.5, application/json", false),
            ("TEXT/CSV; charset=utf-8", true),
            ("text/csv;q=0", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(wants_csv(&headers), Ok(wanted), "{accept}");
        }
    }
}
