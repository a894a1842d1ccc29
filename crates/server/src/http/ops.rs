//! Health, metrics, and the documents that the service carries.

use std::sync::atomic::{AtomicU64, Ordering};

use std::convert::Infallible;

use axum::extract::{FromRequestParts, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, VARY};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use boxoffice_domain::queue::{QueueState, Reason};

use super::describe::{Described, Description};
use super::problem::errors_markdown;
use super::reply::json;
use super::state::HttpState;
use crate::app::AppState;
use crate::health;
use crate::metrics::{Exposition, ReasonLabel, RedisCallLabel};
use prometheus_client::metrics::counter::Counter;

pub(super) async fn live() -> Response {
    const BODY: &[u8] = br#"{"status":"UP","dependencies":[]}"#;
    let mut response = Response::new(axum::body::Body::from(BODY));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(super) async fn ready(State(app): State<AppState>) -> Response {
    let health = health::of(&app);
    let code = if health.is_up() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(code, &health)
}

/// How whoever scrapes wants to read it.
pub(super) struct Asked(Exposition);

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(exposition(&parts.headers)))
    }
}

/// `Accept` is not among the headers that a description lists.
impl Described for Asked {
    fn describe(_: &mut Description) {}
}

/// OpenMetrics where it is asked for by name, and not less than plain text.
fn exposition(headers: &HeaderMap) -> Exposition {
    let weight = |name: &str| {
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges = values.flat_map(|value| value.split(','));
        let weights = ranges.filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            parts.next().filter(|found| found.eq_ignore_ascii_case(name))?;
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            weight.map_or(Some(1.0), |weight| weight.parse::<f64>().ok())
        });
        weights.fold(0.0, f64::max)
    };
    let open_metrics = weight("application/openmetrics-text");
    if open_metrics > 0.0 && open_metrics >= weight("text/plain") {
        Exposition::OpenMetrics
    } else {
        Exposition::Text
    }
}

pub(super) async fn metrics(
    State(HttpState { app, web }): State<HttpState>,
    Asked(exposition): Asked,
) -> Response {
    let now = app.clock.now();
    let level = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let m = &app.metrics;
    for queue in app.sequencer.queues() {
        let label = queue.name().as_str().into();
        let open = queue.state(now) == QueueState::Open;
        m.queue_open.get_or_create(&label).set(open.into());
        m.queue_admitting.get_or_create(&label).set(queue.admitting_per_second(now));
        m.queue_rate.get_or_create(&label).set(queue.settings().admit_per_second);
        match queue.outlook().stock {
            Some(stock) => {
                m.queue_stock.get_or_create(&label).set(level(stock));
            }
            None => {
                m.queue_stock.remove(&label);
            }
        }
        m.queue_waiting.get_or_create(&label).set(level(queue.waiting()));
        m.queue_active.get_or_create(&label).set(level(queue.active(now)));
        m.queue_serving.get_or_create(&label).set(level(queue.serving()));
        let sums = queue.counters();
        for (family, sum) in [
            (&m.queue_joined, &sums.joined),
            (&m.queue_left, &sums.left),
            (&m.queue_admitted, &sums.admitted),
            (&m.queue_expired, &sums.expired),
            (&m.queue_no_show, &sums.no_show),
            (&m.queue_passed, &sums.passed),
            (&m.queue_returned, &sums.returned),
            (&m.queue_rejoined, &sums.rejoined),
            (&m.queue_seconds, &sums.seconds),
        ] {
            family
                .get_or_create(&label)
                .inner()
                .store(sum.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
    let governed = app.sequencer.governed();
    m.governor_share.set(governed.share);
    for reason in Reason::ALL {
        let label = ReasonLabel { reason: reason.name() };
        m.governor_reason.get_or_create(&label).set((reason == governed.reason).into());
    }
    if let Some(redis) = app.sequencer.redis() {
        let store = |counter: &Counter, sum: &AtomicU64| {
            counter.inner().store(sum.load(Ordering::Relaxed), Ordering::Relaxed);
        };
        for (kind, sum) in [
            ("join", &redis.join_calls),
            ("keep", &redis.keep_calls),
            ("solution", &redis.solution_calls),
            ("pool", &redis.pool_calls),
            ("tick", &redis.tick_calls),
        ] {
            store(&m.redis_calls.get_or_create(&RedisCallLabel { kind }), sum);
        }
        store(&m.redis_errors, &redis.errors);
        store(&m.redis_connections, &redis.connections);
        store(&m.redis_grants, &redis.grants);
        store(&m.redis_places_skipped, &redis.skipped);
        store(&m.redis_direct_joins, &redis.direct);
        store(&m.redis_elsewhere_joins, &redis.elsewhere);
        store(&m.redis_reloads, &redis.reloads);
        store(&m.redis_lost, &redis.lost);
        m.redis_up.set(redis.is_up().into());
        m.redis_pooled.set(level(redis.pooled.load(Ordering::Relaxed)));
    }
    if let Some(check) = app.store.clock_check() {
        m.database_clock_ahead.set(check.ahead_ms().unwrap_or(0) as f64 / 1_000.0);
    }
    m.store_up.set(app.store.stats().fault().is_none().into());
    m.store_pending_commands.set(level(app.store.stats().pending.load(Ordering::Relaxed)));
    m.seat_list_builds.inner().store(web.seat_lists.builds(), Ordering::Relaxed);
    let headers = [(CONTENT_TYPE, exposition.content_type()), (VARY, "accept")];
    (headers, m.render(exposition)).into_response()
}

pub(super) async fn errors() -> Response {
    ([(CONTENT_TYPE, "text/markdown; charset=utf-8")], errors_markdown()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_ask_for_it() {
        for (accept, expected) in [
            ("", Exposition::Text),
            ("*/*", Exposition::Text),
            ("text/plain", Exposition::Text),
            ("text/plain;version=0.0.4;q=0.5, */*;q=0.1", Exposition::Text),
            ("application/openmetrics-text", Exposition::OpenMetrics),
            ("application/openmetrics-text;q=0", Exposition::Text),
            ("application/openmetrics-text;q=0.2,text/plain;q=0.9", Exposition::Text),
            ("application/json", Exposition::Text),
            (
                "application/openmetrics-text;version=1.0.0;q=0.6,application/openmetrics-text;\
                 version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Exposition::OpenMetrics,
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(exposition(&headers), expected, "{accept}");
        }
        assert_eq!(exposition(&HeaderMap::new()), Exposition::Text);
    }
}
