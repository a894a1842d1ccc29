//! Plans of halls, as bytes that never change.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, VARY};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use boxoffice_backends::store::{Digest, StoredPlan};
use utoipa::ToSchema;

use super::coding::{Asked, Coding};
use super::describe::{Described, Description};
use super::problem::{ErrorCode, Problem};
use super::state::HttpState;

/// The plan of a hall. The number of a place is its place in this document, counted from 1 over all sections.
#[derive(ToSchema)]
#[allow(dead_code)]
pub(super) struct PlanDocument {
    /// The name of the hall.
    name: String,
    /// Its width, in units of its own, as all that follows.
    width: i32,
    /// Its height.
    height: i32,
    /// Where the stage is.
    stage: PlanPoint,
    /// The grades, by index.
    grades: Vec<String>,
    /// The sections.
    sections: Vec<PlanSection>,
}

/// A point of a hall.
#[derive(ToSchema)]
#[allow(dead_code)]
pub(super) struct PlanPoint {
    /// To the right.
    x: i32,
    /// Away from the stage.
    y: i32,
}

/// A section: rows of seats, or places for standing.
#[derive(ToSchema)]
#[allow(dead_code)]
pub(super) struct PlanSection {
    /// Its name. Sections of the same name are one.
    name: String,
    /// Whether its places are for standing.
    standing: bool,
    /// Its rows; left out where they are for standing.
    #[schema(nullable = false)]
    rows: Option<Vec<PlanRow>>,
    /// Of places for standing: how many.
    #[schema(nullable = false)]
    count: Option<u32>,
    /// Likewise: their grade.
    #[schema(nullable = false)]
    grade: Option<u16>,
    /// Likewise: where they are, from the left.
    #[schema(nullable = false)]
    x: Option<i32>,
    /// Likewise: from the top.
    #[schema(nullable = false)]
    y: Option<i32>,
    /// Likewise: how wide that is.
    #[schema(nullable = false)]
    width: Option<i32>,
    /// Likewise: how high.
    #[schema(nullable = false)]
    height: Option<i32>,
}

/// A row. Place k, counted from 0, is `x` + k·`dx` from the left, or the sum of `xs[0]` to `xs[k]`, and so with `y`
/// from the top; `labels[k]` is printed on it, or `first` + k·`step`; its grade is `grades[k]`, or `grade`.
#[derive(ToSchema)]
#[allow(dead_code)]
pub(super) struct PlanRow {
    /// Its name.
    name: String,
    /// How many places it has.
    count: u32,
    /// Where the first is.
    #[schema(nullable = false)]
    x: Option<i32>,
    /// Likewise.
    #[schema(nullable = false)]
    y: Option<i32>,
    /// How far each is from the one before.
    #[schema(nullable = false)]
    dx: Option<i32>,
    /// Likewise.
    #[schema(nullable = false)]
    dy: Option<i32>,
    /// Where the first is from the left, and then how far each is from the one before.
    #[schema(nullable = false)]
    xs: Option<Vec<i64>>,
    /// Likewise, from the top.
    #[schema(nullable = false)]
    ys: Option<Vec<i64>>,
    /// What is printed on the first.
    #[schema(nullable = false)]
    first: Option<i32>,
    /// By how much it counts on.
    #[schema(nullable = false)]
    step: Option<i32>,
    /// What is printed on each.
    #[schema(nullable = false)]
    labels: Option<Vec<String>>,
    /// The grade of all.
    #[schema(nullable = false)]
    grade: Option<u16>,
    /// The grade of each.
    #[schema(nullable = false)]
    grades: Option<Vec<u16>>,
    /// The places that have an aisle or a gap before them.
    #[schema(nullable = false)]
    gaps: Option<Vec<u32>>,
}

/// The only path parameter of a route, the digest of a plan.
pub(super) struct PathDigest(Digest);

impl<S: Send + Sync> FromRequestParts<S> for PathDigest {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text: Result<Path<String>, _> = Path::from_request_parts(parts, state).await;
        let digest = text.ok().and_then(|Path(text)| Digest::from_hex(&text));
        digest.map(Self).ok_or_else(|| Problem::new(ErrorCode::PlanNotFound))
    }
}

impl Described for PathDigest {
    fn describe(description: &mut Description) {
        description.path_digest();
        description.errors(&[ErrorCode::PlanNotFound]);
    }
}

/// The bytes of a plan where it is.
struct PlanBody(Arc<StoredPlan>);

impl AsRef<[u8]> for PlanBody {
    fn as_ref(&self) -> &[u8] {
        self.0.body()
    }
}

pub(super) async fn show(
    State(HttpState { app, web }): State<HttpState>,
    PathDigest(digest): PathDigest,
    asked: Asked,
) -> Result<Response, Problem> {
    let catalog = app.store.catalog();
    let plan = catalog.plan(&digest).ok_or_else(|| Problem::new(ErrorCode::PlanNotFound))?;
    let etag = match asked.coding {
        Coding::Identity => format!("\"{digest}\""),
        Coding::Gzip => format!("\"{digest}-gzip\""),
    };
    let mut response = Response::new(Body::empty());
    if asked.has(&etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        let bytes = match asked.coding {
            Coding::Identity => Bytes::from_owner(PlanBody(plan.clone())),
            Coding::Gzip => {
                response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                web.plans.packed(&catalog, plan).await
            }
        };
        *response.body_mut() = Body::from(bytes);
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    let for_good = HeaderValue::from_static("public, max-age=31536000, immutable");
    headers.insert(CACHE_CONTROL, for_good);
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, etag);
    }
    Ok(response)
}
