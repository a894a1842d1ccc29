//! What stands before the router.
//!
//! Polls and joins are nearly all of the traffic, pages and public documents are what stands between the
//! service and a crowd asks for, holds are what a rush is about, and a gate is asked for each request of the
//! site behind it. They go to their handlers straight, because finding a route, cloning its service and
//! boxing its future cost as much as checking a ticket and counting a place. Everything else goes through
//! the router, which knows these as well; what is odd about one of them (another method, an escaped path,
//! an id that is none) is left to it.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use axum::routing::future::RouteFuture;
use boxoffice_domain::ids::ConcertId;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::Service;

use super::auth::Presented;
use super::client::ClientAddress;
use super::coding::Asked;
use super::cors::{self, Shared};
use super::extract::PathIds;
use super::observe::{Finished, Observed, Observer, not_found};
use super::problem::Problem;
use super::router::router;
use super::state::{HttpState, Web};
use super::surface::Surface;
use super::{concerts, gate, pages, queue, reservations};
use crate::endpoints::Route;
use crate::pages::Pages;

/// The service of a listener: what serves a connection comes from [`Front::of`].
#[derive(Clone)]
pub struct Front {
    state: HttpState,
    observer: Observer,
    router: Router,
    surface: Surface,
}

impl Front {
    /// The service that answers with the handlers of the router.
    pub fn new(state: HttpState) -> Self {
        let app = state.app();
        let observer = Observer::new(&app.config.server, &app.metrics);
        let router = router(state.clone(), &observer);
        Self { state, observer, router, surface: Surface::All }
    }

    /// The same for a listener that serves a part of it. Limits are shared.
    #[must_use]
    pub fn on(&self, surface: Surface) -> Self {
        Self { surface, ..self.clone() }
    }

    /// The service for the connection of a peer.
    pub fn of(&self, peer: SocketAddr) -> FrontOfPeer {
        FrontOfPeer { front: self.clone(), peer }
    }
}

/// The service of a connection.
pub struct FrontOfPeer {
    front: Front,
    peer: SocketAddr,
}

/// The body of an answer: whole, as those are that come from here, or whatever the router made.
type FrontBody = Either<Full<Bytes>, Body>;

type FrontResponse = Response<FrontBody>;
type Boxed = Pin<Box<dyn Future<Output = FrontResponse> + Send>>;

impl Finished for FrontResponse {
    type Body = FrontBody;

    fn into_inner(self) -> Self {
        self
    }

    fn from_inner(response: Self) -> Self {
        response
    }

    fn refused(response: Response) -> Self {
        response.map(Either::Right)
    }
}

/// Where the gates are, each by the name of its queue.
const GATE: &str = "/gate/";

/// A request on its way.
pub struct FrontFuture {
    way: Way,
    /// How the answer is shared with pages of other origins, where any may read it.
    shared: Option<Shared>,
}

enum Way {
    /// A poll or a document, which is answered from memory at once. Empty once it has been taken.
    Answered(Option<FrontResponse>),
    /// A join or a hold, which has a body to be read.
    Boxed(Observed<Boxed>),
    /// Anything else.
    Routed(RouteFuture<Infallible>),
}

impl Future for FrontFuture {
    type Output = Result<FrontResponse, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { way, shared } = self.get_mut();
        let answer = match way {
            Way::Answered(response) => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                // Nobody asks again for what he has.
                None => Poll::Pending,
            },
            Way::Boxed(future) => Pin::new(future).poll(cx).map(Ok),
            Way::Routed(future) => {
                Pin::new(future).poll(cx).map_ok(|response| response.map(Either::Right))
            }
        };
        if shared.is_none() {
            return answer;
        }
        answer.map_ok(|mut response| {
            if let Some(shared) = shared.take() {
                shared.tell(response.headers_mut());
            }
            response
        })
    }
}

fn whole(answer: Result<Response<Full<Bytes>>, Problem>) -> FrontResponse {
    match answer {
        Ok(response) => response.map(Either::Left),
        Err(problem) => problem.into_response().map(Either::Right),
    }
}

impl Service<hyper::Request<Incoming>> for FrontOfPeer {
    type Response = FrontResponse;
    type Error = Infallible;
    type Future = FrontFuture;

    fn call(&self, request: hyper::Request<Incoming>) -> FrontFuture {
        let Web { cors, pages, .. } = &*self.front.state.web;
        // Pages are for the eyes of people, and the same whoever asks.
        let is_page = || pages.is_some() && pages::find(request.uri().path()).is_some();
        let shared = cors.as_ref().filter(|_| !is_page()).and_then(|cors| cors.share(&request));
        let way = match &shared {
            Some(shared) if shared.is_preflight(&request) => {
                let answer = |_| cors::preflight().map(Either::Left);
                let observer = &self.front.observer;
                Way::Answered(Some(observer.answer(Route::Preflight, &request, answer)))
            }
            _ => self.send(request),
        };
        FrontFuture { way, shared }
    }
}

/// The name of the queue whose public document has this path. `None` is for the router to look at.
fn queue_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix(Route::QueueStatus.template())?.strip_prefix('/')?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (!name.is_empty() && name.bytes().all(is_plain)).then_some(name)
}

impl FrontOfPeer {
    fn send(&self, request: hyper::Request<Incoming>) -> Way {
        let Front { state: HttpState { app, web }, observer, router, surface } = &self.front;
        let client = |request: &hyper::Request<Incoming>| {
            ClientAddress::of(self.peer, request.headers(), &web.trusted_proxies)
        };
        let path = request.uri().path();
        if !surface.serves(path) {
            return Way::Boxed(observer.start(Route::NotFound, request, |_, _| -> Boxed {
                Box::pin(async { whole(Err(not_found().await)) })
            }));
        }
        if path == Route::QueueStatus.template() {
            if *request.method() == Method::GET {
                let answer = |begun| {
                    if let Some(rate) = &web.poll_rate
                        && let Err(problem) = rate.check(client(&request))
                    {
                        return whole(Err(problem));
                    }
                    let presented = Presented::at(request.headers(), app, begun);
                    whole(presented.map(|presented| queue::place_of(app, &presented)))
                };
                let response = observer.answer(Route::QueueStatus, &request, answer);
                return Way::Answered(Some(response));
            }
            if *request.method() == Method::POST {
                let client = client(&request);
                return Way::Boxed(observer.start(
                    Route::QueueJoin,
                    request,
                    |request, begun| -> Boxed {
                        let joined =
                            queue::join_from(app.clone(), web.clone(), begun, client, request);
                        Box::pin(async move { whole(joined.await) })
                    },
                ));
            }
        } else if *request.method() == Method::GET
            && let Some(name) = queue_of(path)
        {
            let answer = |begun| whole(queue::document_named(app, web, name, begun));
            return Way::Answered(Some(observer.answer(Route::QueuePublic, &request, answer)));
        } else if *request.method() == Method::GET
            && let Some(PathIds(id)) = PathIds::<ConcertId>::of(path, Route::ConcertGet.template())
        {
            let answer = |begun| whole(concerts::document_of(app, web, id, begun));
            return Way::Answered(Some(observer.answer(Route::ConcertGet, &request, answer)));
        } else if *request.method() == Method::POST
            && let Some(ids) = PathIds::of(path, Route::ReservationCreate.template())
        {
            let client = client(&request);
            return Way::Boxed(observer.start(
                Route::ReservationCreate,
                request,
                |request, _| -> Boxed {
                    let created =
                        reservations::create_from(app.clone(), web.body, ids, client, request);
                    Box::pin(async move { created.await.map(Either::Right) })
                },
            ));
        }
        if let Some(queue) = path.strip_prefix(GATE)
            && *request.method() == Method::GET
            && !queue.is_empty()
            && !queue.contains(['/', '%'])
        {
            let answer =
                |begun| gate::answer(app, queue, request.headers(), begun).map(Either::Right);
            return Way::Answered(Some(observer.answer(Route::Gate, &request, answer)));
        }
        if let Some(Pages::Built(site)) = &web.pages
            && *request.method() == Method::GET
            && let Some(wanted) = pages::find(path)
        {
            let answer = |_| whole(pages::answer(site, wanted, &Asked::of(request.headers())));
            return Way::Answered(Some(observer.answer(wanted.route, &request, answer)));
        }
        let client = client(&request);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(client);
        Way::Routed(tower::Service::call(&mut router.clone(), request))
    }
}
