//! What wraps every request: its id, the limit of its class, the panic net, metrics and the access
//! log.
//!
//! One hand-written future instead of a stack of layers: a layer of axum costs a boxed clone and a
//! boxed future each, and a poll of the queue has to cost about as much as an empty handler.
//! [`Observer::handler`] wraps at the handler, which axum boxes anyway, and so adds no allocation;
//! [`Observer::layer`] wraps a `MethodRouter` that somebody else's macro has built, for one more
//! box per request.
//!
//! What does not belong here: anything that needs the request's body, a token, or the store.

use std::any::Any;
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONNECTION, Entry, VARY, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use prometheus_client::metrics::counter::Counter;
use tower::{Layer, Service};

use super::bodies::{Bodies, OnItsWay};
use super::client::ClientAddress;
use super::damper::Damper;
use super::problem::{Cause, ErrorCode, Problem};
use super::request_id::{RequestId, RequestIds, X_REQUEST_ID};
use crate::config::ServerConfig;
use crate::endpoints::{Class, Route};
use crate::metrics::{ClassLabel, HttpDurations, Metrics};

/// Longest path and query that is served, in bytes. hyper would let through what fits its buffer.
const URI_MAX: usize = 8 * 1024;

/// What every answer has unless it says otherwise: it is for this client and for now.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// What an answer may depend on, beside the path.
const WHO_ASKS: HeaderValue = HeaderValue::from_static("authorization, cookie, queue-token");
const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// Whole seconds that a shed request is asked to wait.
const SHED_RETRY_AFTER_SECONDS: u32 = 1;

/// How often the log is told at the most why the store is unavailable.
const UNAVAILABLE_LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Shared by all wrapped routes; cloning shares.
#[derive(Debug, Clone)]
pub struct Observer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    durations: HttpDurations,
    classes: [ClassLimit; Class::ALL.len()],
    bodies: Arc<Bodies>,
    ids: RequestIds,
    /// Bounds how often the log is told why a 503 was answered.
    unavailable: Damper,
}

/// On a cache line of its own: the classes are counted by different requests on different cores.
#[derive(Debug)]
#[repr(align(64))]
struct ClassLimit {
    in_progress: AtomicUsize,
    max: usize,
    shed: Counter,
}

impl Observer {
    /// An observer with the limits of a configuration.
    pub fn new(config: &ServerConfig, metrics: &Metrics) -> Self {
        let limits = &config.concurrency;
        let classes = Class::ALL.map(|class| ClassLimit {
            in_progress: AtomicUsize::new(0),
            max: match class {
                Class::Payment => limits.payment,
                Class::Charge => limits.charge,
                Class::Reservation => limits.reservation,
                Class::Poll => limits.poll,
                Class::Join => limits.join,
                Class::Browse => limits.browse,
                Class::SignIn => limits.sign_in,
                Class::Admin => limits.admin,
                Class::Ops => usize::MAX,
            },
            shed: metrics.http_server_requests_shed.get_or_create(&ClassLabel { class }).clone(),
        });
        Self(Arc::new(Inner {
            durations: metrics.http_server_request_duration.clone(),
            classes,
            bodies: Bodies::new(config, metrics),
            ids: RequestIds::new(),
            unavailable: Damper::new(UNAVAILABLE_LOG_INTERVAL),
        }))
    }

    /// Wraps a handler: `get(observer.handler(Route::QueueStatus, queue_status))`.
    pub fn handler<H>(&self, route: Route, handler: H) -> ObservedHandler<H> {
        ObservedHandler { observer: self.clone(), route, handler }
    }

    /// Wraps a `MethodRouter`'s routes: `routes!(queue_status).route_layer(…)`. All its methods
    /// are counted as the one endpoint, so give it one method.
    pub fn layer(&self, route: Route) -> ObserveLayer {
        ObserveLayer { observer: self.clone(), route }
    }

    /// Requests of a class in progress now.
    pub fn in_progress(&self, class: Class) -> usize {
        self.0.classes[class.index()].in_progress.load(Ordering::Relaxed)
    }

    /// Observes a request that is answered at once. `answer` is told when it began.
    pub(crate) fn answer<R: Finished, B>(
        &self,
        route: Route,
        request: &axum::http::Request<B>,
        answer: impl FnOnce(Instant) -> R,
    ) -> R {
        let started = Instant::now();
        let id = self.0.ids.take_or_make(request.headers());
        let refused = self.0.enter(route.class(), request);
        let outer = RequestId::replace_current(Some(id));
        let response = match refused {
            Some(problem) => R::refused(problem.into_response()),
            None => catch_unwind(AssertUnwindSafe(|| answer(started).into_inner()))
                .unwrap_or_else(|panic| R::refused(panicked(&*panic))),
        };
        let id = RequestId::replace_current(outer);
        self.0.leave(route.class());
        R::from_inner(self.0.finish(response, route, id, started))
    }

    /// Begins to observe a request. `call` returns the future that answers it, and is told when the
    /// request began.
    pub(crate) fn start<F, B>(
        &self,
        route: Route,
        request: axum::http::Request<B>,
        call: impl FnOnce(axum::http::Request<B>, Instant) -> F,
    ) -> Observed<F> {
        let started = Instant::now();
        let id = self.0.ids.take_or_make(request.headers());
        let refused = self.0.enter(route.class(), &request);
        let permit = Permit { observer: self.clone(), class: route.class(), has_slot: true };
        let work = match refused {
            Some(problem) => Work::Refused(problem),
            None => Work::Running(call(request, started)),
        };
        Observed { work, permit: Some(permit), route, id: Some(id), started }
    }
}

impl Inner {
    /// Counts a request in, and returns why it is refused, if it is. The caller counts it out in
    /// either case.
    fn enter<B>(&self, class: Class, request: &axum::http::Request<B>) -> Option<Problem> {
        if let Err(overloaded) = self.take_slot(class) {
            return Some(overloaded);
        }
        let uri = request.uri().path_and_query();
        uri.is_some_and(|uri| uri.as_str().len() > URI_MAX)
            .then(|| Problem::new(ErrorCode::UriTooLong))
    }

    /// Counts one more of a class, in either case.
    fn take_slot(&self, class: Class) -> Result<(), Problem> {
        let limit = &self.classes[class.index()];
        // Counted first and compared afterwards: two arrivals cannot both take the last place.
        if limit.in_progress.fetch_add(1, Ordering::Relaxed) >= limit.max {
            limit.shed.inc();
            return Err(Problem::new(ErrorCode::Overloaded).retry_after(SHED_RETRY_AFTER_SECONDS));
        }
        Ok(())
    }

    fn leave(&self, class: Class) {
        self.classes[class.index()].in_progress.fetch_sub(1, Ordering::Relaxed);
    }

    fn finish<B>(
        &self,
        mut response: Response<B>,
        route: Route,
        id: Option<RequestId>,
        started: Instant,
    ) -> Response<B> {
        let took = started.elapsed();
        let status = response.status().as_u16();
        self.durations.observe(route, status, took);
        if let Some(id) = id {
            let cause = if status >= 500 { response.extensions_mut().remove() } else { None };
            self.log(route, status, &id, took, cause);
            response.headers_mut().insert(X_REQUEST_ID, id.header_value());
        }
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
        if let Entry::Vacant(caching) = headers.entry(CACHE_CONTROL) {
            caching.insert(NO_STORE);
            if route.class() != Class::Ops {
                headers.insert(VARY, WHO_ASKS);
            }
        }
        // Their bodies may not have been read; hyper would read them to their end to keep the
        // connection.
        if matches!(status, 408 | 413) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Writes a request down, once.
    fn log(&self, route: Route, status: u16, id: &RequestId, took: Duration, cause: Option<Cause>) {
        /// All of them have these fields.
        macro_rules! line {
            ($level:ident, $message:literal $(, $($more:tt)+)?) => {
                tracing::$level!(
                    request.id = %id,
                    trace.id = id.trace().map(tracing::field::display),
                    http.method = route.method(),
                    http.route = route.template(),
                    http.status = status,
                    duration.us = took.as_micros() as u64,
                    $($($more)+,)?
                    $message
                )
            };
        }
        match (status, cause) {
            // A 503 is an answer, given by the thousand under load, and counted. Where it has a
            // cause that somebody should know, a line now and then tells of all of them.
            (503, Some(Cause(cause))) => match self.unavailable.pass(Instant::now()) {
                Some(left_out) => {
                    line!(warn, "request refused", error = %cause, log.left_out = left_out);
                }
                None => line!(debug, "request refused", error = %cause),
            },
            (503, None) => line!(debug, "request refused"),
            (500.., Some(Cause(cause))) => line!(error, "request failed", error = %cause),
            (500.., None) => line!(error, "request failed"),
            _ => line!(debug, "request served"),
        }
    }
}

/// Counts a request out again, however its future ends.
#[derive(Debug)]
struct Permit {
    observer: Observer,
    class: Class,
    has_slot: bool,
}

impl Permit {
    fn give_back(&mut self) {
        if std::mem::take(&mut self.has_slot) {
            self.observer.0.leave(self.class);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back();
    }
}

thread_local! {
    /// The permit of the request whose future is being polled, kept as [`RequestId::current`] is.
    static CURRENT: RefCell<Option<Permit>> = const { RefCell::new(None) };
}

/// A request that waits for its body, and holds no slot of its class meanwhile.
#[derive(Debug)]
pub(super) struct AwaitsBody {
    place: Option<OnItsWay>,
}

impl AwaitsBody {
    /// Lets the request whose future is being polled wait for its body: it gives back its slot.
    ///
    /// # Errors
    /// Where too many bodies are on their way.
    pub(super) fn begin(client: ClientAddress) -> Result<Self, Problem> {
        CURRENT.with_borrow_mut(|permit| {
            let Some(permit) = permit else { return Ok(Self { place: None }) };
            let place = permit.observer.0.bodies.enter(client)?;
            permit.give_back();
            Ok(Self { place: Some(place) })
        })
    }

    /// The body is here: the request takes a slot again.
    ///
    /// # Errors
    /// 503 where the class is full.
    pub(super) fn end(self) -> Result<(), Problem> {
        CURRENT.with_borrow_mut(|permit| {
            let (Some(permit), Some(_)) = (permit, self.place) else { return Ok(()) };
            permit.has_slot = true;
            permit.observer.0.take_slot(permit.class)
        })
    }
}

#[derive(Debug)]
enum Work<F> {
    Running(F),
    Refused(Problem),
}

/// A wrapped request in progress.
#[derive(Debug)]
pub struct Observed<F> {
    work: Work<F>,
    /// Present except while it is current, which is while the inner future is polled; so is the id.
    permit: Option<Permit>,
    route: Route,
    id: Option<RequestId>,
    started: Instant,
}

/// What the outputs of handlers and of services have in common.
pub trait Finished: Sized {
    /// The body of the response.
    type Body;

    /// The response inside.
    fn into_inner(self) -> Response<Self::Body>;
    /// A response as this type.
    fn from_inner(response: Response<Self::Body>) -> Self;
    /// A response in place of the one that there would have been.
    fn refused(response: Response) -> Response<Self::Body>;
}

impl Finished for Response {
    type Body = Body;

    fn into_inner(self) -> Response {
        self
    }

    fn from_inner(response: Response) -> Self {
        response
    }

    fn refused(response: Response) -> Response {
        response
    }
}

impl Finished for Result<Response, Infallible> {
    type Body = Body;

    fn into_inner(self) -> Response {
        match self {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    fn from_inner(response: Response) -> Self {
        Ok(response)
    }

    fn refused(response: Response) -> Response {
        response
    }
}

impl<F> Future for Observed<F>
where
    F: Future<Output: Finished> + Unpin,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        // Put back below; a panic is caught in between, so no other request can see this one's id.
        let outer = RequestId::replace_current(this.id.take());
        let outer_permit = CURRENT.replace(this.permit.take());
        let polled = catch_unwind(AssertUnwindSafe(|| match &mut this.work {
            Work::Running(future) => Pin::new(future).poll(cx).map(Finished::into_inner),
            Work::Refused(problem) => {
                Poll::Ready(F::Output::refused(problem.clone().into_response()))
            }
        }));
        this.permit = CURRENT.replace(outer_permit);
        let response = match polled {
            Ok(Poll::Pending) => {
                this.id = RequestId::replace_current(outer);
                return Poll::Pending;
            }
            Ok(Poll::Ready(response)) => response,
            Err(panic) => F::Output::refused(panicked(&*panic)),
        };
        let id = RequestId::replace_current(outer);
        let response = match &this.permit {
            Some(permit) => permit.observer.0.finish(response, this.route, id, this.started),
            // Whatever was polled gives back what it was given.
            None => response,
        };
        Poll::Ready(Finished::from_inner(response))
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Response {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message");
    Problem::internal(format_args!("handler panicked: {message}")).into_response()
}

/// A wrapped handler; see [`Observer::handler`].
#[derive(Debug, Clone)]
pub struct ObservedHandler<H> {
    observer: Observer,
    route: Route,
    handler: H,
}

impl<H, T, S> Handler<T, S> for ObservedHandler<H>
where
    H: Handler<T, S>,
    H::Future: Unpin,
{
    type Future = Observed<H::Future>;

    fn call(self, request: Request, state: S) -> Self::Future {
        let Self { observer, route, handler } = self;
        observer.start(route, request, |request, _| handler.call(request, state))
    }
}

/// See [`Observer::layer`].
#[derive(Debug, Clone)]
pub struct ObserveLayer {
    observer: Observer,
    route: Route,
}

impl<S> Layer<S> for ObserveLayer {
    type Service = ObservedService<S>;

    fn layer(&self, inner: S) -> ObservedService<S> {
        ObservedService { observer: self.observer.clone(), route: self.route, inner }
    }
}

/// A wrapped service; see [`Observer::layer`].
#[derive(Debug, Clone)]
pub struct ObservedService<S> {
    observer: Observer,
    route: Route,
    inner: S,
}

impl<S> Service<Request> for ObservedService<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Observed<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let inner = &mut self.inner;
        self.observer.start(self.route, request, |request, _| inner.call(request))
    }
}

/// The fallback for paths that no endpoint has:
/// `router.fallback(observer.handler(Route::NotFound, not_found))`.
pub async fn not_found() -> Problem {
    Problem::new(ErrorCode::RouteNotFound)
}

/// The fallback for methods that a path does not have; axum adds `Allow`:
/// `router.method_not_allowed_fallback(observer.handler(Route::MethodNotAllowed, method_not_allowed))`.
pub async fn method_not_allowed() -> Problem {
    Problem::new(ErrorCode::MethodNotAllowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::extract::{ApiJson, BodyLimits, PathIds};
    use crate::http::reply::fault;
    use axum::Router;
    use axum::body::Body;
    use axum::extract::FromRef;
    use axum::routing::{get, post};
    use boxoffice_backends::Fault;
    use boxoffice_domain::ids::{ConcertId, SessionId};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    type Pair = PathIds<(ConcertId, SessionId)>;

    #[derive(Clone)]
    struct State(BodyLimits);

    impl FromRef<State> for BodyLimits {
        fn from_ref(state: &State) -> Self {
            state.0
        }
    }

    /// What is logged while the returned guard lives, in this thread.
    fn logged() -> (Log, tracing::subscriber::DefaultGuard) {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    #[derive(Clone, Default)]
    struct Log(Arc<parking_lot::Mutex<Vec<u8>>>);

    impl Log {
        fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().clone()).unwrap().lines().map(str::to_owned).collect()
        }
    }

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn why_the_store_is_unavailable_is_for_the_log_and_not_by_the_thousand() {
        let (router, ..) = app();
        let (log, _guard) = logged();
        let begun = Instant::now();
        for n in 0..200 {
            let mut asked = request("GET", "/unavailable");
            let id = HeaderValue::from_str(&format!("request-{n}")).unwrap();
            asked.headers_mut().insert(X_REQUEST_ID, id);
            let (response, body) = send(&router, asked).await;
            assert_eq!(response.status(), 503);
            assert_eq!(code(&body), "STORE_UNAVAILABLE");
            assert!(!body.contains("disk"), "{body}");
            assert!(response.extensions().get::<Cause>().is_none());
        }
        let lines = log.lines();
        assert!(lines[0].contains("error=the disk is full"), "{lines:?}");
        assert!(lines[0].contains("request.id=request-0 "), "{lines:?}");
        assert!(lines.len() as u64 <= 1 + begun.elapsed().as_secs(), "{lines:?}");
    }

    #[tokio::test]
    async fn a_failure_is_logged_once_with_its_cause() {
        let (router, ..) = app();
        let (log, _guard) = logged();
        for (path, cause) in [("/unknown", "no answer to COMMIT"), ("/panic", "secret cause")] {
            let (response, body) = send(&router, request("GET", path)).await;
            assert!(response.status().as_u16() >= 500);
            assert!(!body.contains(cause), "{body}");
            let id = response.headers()[X_REQUEST_ID].to_str().unwrap();
            let lines = log.lines();
            let about: Vec<&String> = lines.iter().filter(|line| line.contains(id)).collect();
            assert_eq!(about.len(), 1, "{lines:?}");
            assert!(about[0].contains(cause), "{lines:?}");
        }
    }

    fn app() -> (Router, Observer, Metrics) {
        let metrics = Metrics::new();
        let mut config = ServerConfig { bodies_max: 2, ..ServerConfig::default() };
        config.concurrency.poll = 1;
        config.concurrency.payment = 1;
        let observer = Observer::new(&config, &metrics);
        let router = Router::new()
            .route("/ok", get(observer.handler(Route::ConcertList, async || "ok")))
            .route(
                "/panic",
                get(observer
                    .handler(Route::SeatList, async || -> &'static str { panic!("secret cause") })),
            )
            .route(
                "/unavailable",
                get(observer.handler(Route::PointsBalance, async || {
                    fault(&Fault::Unavailable("the disk is full".into()))
                })),
            )
            .route(
                "/unknown",
                get(observer.handler(Route::PaymentCreate, async || {
                    fault(&Fault::OutcomeUnknown("no answer to COMMIT".into()))
                })),
            )
            .route(
                "/forever",
                get(observer.handler(Route::QueueStatus, async || {
                    std::future::pending::<()>().await;
                })),
            )
            .route(
                "/layered",
                get(async || {
                    tokio::task::yield_now().await;
                    RequestId::current().map(|id| id.to_string()).unwrap_or_default()
                })
                .route_layer(observer.layer(Route::SessionList)),
            )
            .route(
                "/json",
                post(observer.handler(
                    Route::QueueJoin,
                    async |ApiJson(value): ApiJson<serde_json::Value>| value.to_string(),
                )),
            )
            .route(
                "/pay",
                post(observer.handler(
                    Route::PaymentCreate,
                    async |ApiJson(value): ApiJson<serde_json::Value>| value.to_string(),
                )),
            )
            .route(
                "/a/{a}/b/{b}",
                get(observer
                    .handler(Route::SeatList, async |PathIds((a, b)): Pair| format!("{a},{b}"))),
            )
            .fallback(observer.handler(Route::NotFound, not_found))
            .method_not_allowed_fallback(
                observer.handler(Route::MethodNotAllowed, method_not_allowed),
            )
            .with_state(State(BodyLimits { max_bytes: 64, timeout: Duration::from_millis(50) }));
        (router, observer, metrics)
    }

    fn request(method: &str, uri: &str) -> Request {
        Request::builder().method(method).uri(uri).body(Body::empty()).unwrap()
    }

    async fn send(router: &Router, request: Request) -> (Response<()>, String) {
        send_to(router.clone(), request).await
    }

    async fn send_to(router: Router, request: Request) -> (Response<()>, String) {
        let response = router.oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (Response::from_parts(parts, ()), String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn code(body: &str) -> String {
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        json["code"].as_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn what_is_answered_at_once_is_observed_like_the_rest() {
        let (router, observer, metrics) = app();
        let answer = |then: fn() -> Response| {
            let answered = observer.answer(Route::QueueStatus, &request("GET", "/"), |_| then());
            assert!(answered.headers().contains_key(X_REQUEST_ID));
            answered.status().as_u16()
        };
        assert_eq!(answer(|| "ok".into_response()), 200);
        assert_eq!(answer(|| panic!("secret cause")), 500);
        assert_eq!(observer.in_progress(Class::Poll), 0);
        // Another one takes the only place.
        let running = router.clone().oneshot(request("GET", "/forever"));
        let running = tokio::spawn(running);
        while observer.in_progress(Class::Poll) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(answer(|| "ok".into_response()), 503);
        running.abort();
        let _ = running.await;
        assert_eq!(answer(|| "ok".into_response()), 200);
        assert_eq!(metrics.http_server_request_duration.count(Route::QueueStatus, 5), 2);
    }

    #[tokio::test]
    async fn every_response_has_an_id_and_every_problem_the_same() {
        let (router, _, metrics) = app();
        let (response, _) = send(&router, request("GET", "/ok")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[X_REQUEST_ID].len(), 24);

        let mut given = request("GET", "/nowhere");
        given.headers_mut().insert(X_REQUEST_ID, HeaderValue::from_static("mine"));
        let (response, body) = send(&router, given).await;
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()[X_REQUEST_ID], "mine");
        assert!(body.contains("\"requestId\":\"mine\""), "{body}");
        assert_eq!(code(&body), "ROUTE_NOT_FOUND");
        assert_eq!(metrics.http_server_request_duration.count(Route::NotFound, 4), 1);
        assert_eq!(metrics.http_server_request_duration.count(Route::ConcertList, 2), 1);
        assert_eq!(RequestId::current(), None);
    }

    #[tokio::test]
    async fn a_wrong_method_is_a_problem_with_allow_and_counted() {
        let (router, _, metrics) = app();
        for path in ["/ok", "/layered"] {
            let (response, body) = send(&router, request("DELETE", path)).await;
            assert_eq!(response.status(), 405, "{path}");
            assert_eq!(response.headers()["allow"], "GET,HEAD");
            assert_eq!(code(&body), "METHOD_NOT_ALLOWED");
        }
        assert_eq!(metrics.http_server_request_duration.count(Route::MethodNotAllowed, 4), 2);
    }

    #[tokio::test]
    async fn a_layered_handler_sees_its_id_across_polls() {
        let (router, _, metrics) = app();
        let (response, body) = send(&router, request("GET", "/layered")).await;
        assert_eq!(response.headers()[X_REQUEST_ID], body.as_str());
        assert_eq!(metrics.http_server_request_duration.count(Route::SessionList, 2), 1);
    }

    #[tokio::test]
    async fn a_panic_is_a_500_without_its_cause() {
        let (router, observer, metrics) = app();
        let (response, body) = send(&router, request("GET", "/panic")).await;
        assert_eq!(response.status(), 500);
        assert_eq!(code(&body), "INTERNAL");
        assert!(!body.contains("secret"), "{body}");
        assert!(response.headers().contains_key(X_REQUEST_ID));
        assert_eq!(observer.in_progress(Class::Browse), 0);
        assert_eq!(metrics.http_server_request_duration.count(Route::SeatList, 5), 1);
    }

    #[tokio::test]
    async fn a_full_class_sheds_and_a_dropped_request_makes_room() {
        let (router, observer, metrics) = app();
        let running = router.clone().oneshot(request("GET", "/forever"));
        let running = tokio::spawn(running);
        while observer.in_progress(Class::Poll) == 0 {
            tokio::task::yield_now().await;
        }
        let (response, body) = send(&router, request("GET", "/forever")).await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(code(&body), "OVERLOADED");
        // Another class is not affected.
        assert_eq!(send(&router, request("GET", "/ok")).await.0.status(), 200);
        let label = ClassLabel { class: Class::Poll };
        assert_eq!(metrics.http_server_requests_shed.get_or_create(&label).get(), 1);
        assert_eq!(observer.in_progress(Class::Poll), 1);
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        assert_eq!(observer.in_progress(Class::Poll), 0);
    }

    #[tokio::test]
    async fn bodies_are_limited_in_size_and_time() {
        let (router, _, _) = app();
        let post = |body: Body| {
            Request::builder()
                .method("POST")
                .uri("/json")
                .header("content-type", "application/json")
                .body(body)
                .unwrap()
        };
        let (response, body) = send(&router, post(Body::from(r#"{"n":1}"#))).await;
        assert_eq!((response.status().as_u16(), body.as_str()), (200, r#"{"n":1}"#));
        let long = format!("\"{}\"", "x".repeat(100));
        let (response, body) = send(&router, post(Body::from(long))).await;
        assert_eq!((response.status().as_u16(), code(&body).as_str()), (413, "BODY_TOO_LARGE"));
        assert_eq!(response.headers()["connection"], "close");
        let (response, body) = send(&router, post(Body::empty())).await;
        assert_eq!((response.status().as_u16(), code(&body).as_str()), (400, "MALFORMED_JSON"));
        let (response, body) = send(&router, request("POST", "/json")).await;
        assert_eq!((response.status().as_u16(), code(&body).as_str()), (400, "MALFORMED_JSON"));
        let never = Body::new(http_body_util::combinators::BoxBody::new(Never));
        let (response, body) = send(&router, post(never)).await;
        assert_eq!((response.status().as_u16(), code(&body).as_str()), (408, "REQUEST_TIMEOUT"));
    }

    struct Never;

    impl hyper::body::Body for Never {
        type Data = axum::body::Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<hyper::body::Frame<Self::Data>, Infallible>>> {
            Poll::Pending
        }
    }

    /// What is sent as the test goes on.
    struct Later(tokio::sync::mpsc::Receiver<&'static [u8]>);

    impl hyper::body::Body for Later {
        type Data = axum::body::Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<hyper::body::Frame<Self::Data>, Infallible>>> {
            let frame = |bytes| Ok(hyper::body::Frame::data(Self::Data::from_static(bytes)));
            self.0.poll_recv(cx).map(|sent| sent.map(frame))
        }
    }

    fn to_pay(body: Body) -> Request {
        let request = Request::builder().method("POST").uri("/pay");
        request.header("content-type", "application/json").body(body).unwrap()
    }

    fn to_pay_later() -> (tokio::sync::mpsc::Sender<&'static [u8]>, Request) {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        (sender, to_pay(Body::new(Later(receiver))))
    }

    /// Waits until so many bodies are on their way.
    async fn on_the_way(metrics: &Metrics, count: i64) {
        let waiting = async {
            while metrics.http_server_bodies.get() != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap();
    }

    #[tokio::test]
    async fn who_waits_for_a_body_holds_no_slot_and_takes_one_when_it_is_here() {
        let (router, observer, metrics) = app();
        let begin = |request| tokio::spawn(send_to(router.clone(), request));
        let (one, paying_one) = to_pay_later();
        let (two, paying_two) = to_pay_later();
        let running = [begin(paying_one), begin(paying_two)];
        on_the_way(&metrics, 2).await;
        assert_eq!(observer.in_progress(Class::Payment), 0);
        // The only slot is free for whoever comes with a body.
        assert_eq!(send(&router, to_pay(Body::from("{}"))).await.0.status(), 200);
        // A third has no place to wait in.
        let (response, body) = send(&router, to_pay_later().1).await;
        assert_eq!((response.status().as_u16(), code(&body).as_str()), (503, "OVERLOADED"));
        assert_eq!(response.headers()["connection"], "close");
        // A part of a body is none.
        one.send(b"{\"n\":").await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!(observer.in_progress(Class::Payment), 0);
        one.send(b"1}").await.unwrap();
        drop(one);
        // The second hangs up.
        running[1].abort();
        drop(two);
        let [first, second] = running;
        assert_eq!(first.await.unwrap().1, r#"{"n":1}"#);
        assert!(second.await.unwrap_err().is_cancelled());
        assert_eq!(metrics.http_server_bodies.get(), 0);
        assert_eq!(observer.in_progress(Class::Payment), 0);
    }

    #[tokio::test]
    async fn a_body_that_comes_to_a_full_class_is_shed() {
        let (router, observer, metrics) = app();
        let (sender, paying) = to_pay_later();
        let running = tokio::spawn(send_to(router.clone(), paying));
        on_the_way(&metrics, 1).await;
        observer.0.take_slot(Class::Payment).unwrap();
        sender.send(b"{}").await.unwrap();
        drop(sender);
        let (response, body) = running.await.unwrap();
        assert_eq!((response.status().as_u16(), code(&body).as_str()), (503, "OVERLOADED"));
        assert_eq!(observer.in_progress(Class::Payment), 1);
        observer.0.leave(Class::Payment);
    }

    #[tokio::test]
    async fn path_ids_are_read_in_order() {
        let (router, _, _) = app();
        assert_eq!(send(&router, request("GET", "/a/7/b/9")).await.1, "7,9");
        for path in
            ["/a/0/b/9", "/a/x/b/9", "/a/7/b/9223372036854775808", "/a/%ff/b/1", "/a/07/b/1"]
        {
            let (response, body) = send(&router, request("GET", path)).await;
            assert_eq!(
                (response.status().as_u16(), code(&body).as_str()),
                (400, "INVALID_ID"),
                "{path}"
            );
        }
    }

    #[tokio::test]
    async fn an_endless_uri_is_refused() {
        let (router, _, _) = app();
        let uri = format!("/ok?{}", "x".repeat(URI_MAX));
        let (response, body) = send(&router, request("GET", &uri)).await;
        assert_eq!((response.status().as_u16(), code(&body).as_str()), (414, "URI_TOO_LONG"));
    }
}
