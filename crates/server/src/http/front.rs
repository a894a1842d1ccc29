//! What stands before the router.
//!
//! Polls and joins are nearly all of the traffic, and holds are what a rush is about. They go to
//! their handlers straight, because finding a route, cloning its service and boxing its future cost
//! as much as checking a ticket and counting a place. Everything else goes through the router, which
//! knows these three as well; what is odd about one of them (an escaped path, an id that is none) is
//! left to it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use axum::routing::future::RouteFuture;
use hyper::body::Incoming;
use tower::Service;

use super::auth::Presented;
use super::extract::PathIds;
use super::observe::{Observed, Observer};
use super::route::Route;
use super::{queue, reservations};
use crate::app::AppState;

/// The service of a listener.
#[derive(Clone)]
pub struct Front {
    app: AppState,
    observer: Observer,
    router: Router,
}

impl Front {
    /// The service that answers with the handlers of `router`.
    pub fn new(app: AppState) -> Self {
        let observer = Observer::new(&app.config.server.concurrency, &app.metrics);
        let router = super::router(app.clone(), &observer);
        Self { app, observer, router }
    }
}

type Boxed = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Answers a poll from memory, when it is first asked to.
pub struct PollNow {
    app: AppState,
    request: hyper::Request<Incoming>,
}

impl Future for PollNow {
    type Output = Response;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Response> {
        Poll::Ready(match Presented::from_headers(self.request.headers(), &self.app) {
            Ok(presented) => queue::place_of(&presented),
            Err(problem) => problem.into_response(),
        })
    }
}

/// A request on its way.
pub enum FrontFuture {
    /// A poll.
    Poll(Observed<PollNow>),
    /// A join or a hold, which has a body to be read.
    Boxed(Observed<Boxed>),
    /// Anything else.
    Routed(RouteFuture<Infallible>),
}

impl Future for FrontFuture {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Poll(future) => Pin::new(future).poll(cx).map(Ok),
            Self::Boxed(future) => Pin::new(future).poll(cx).map(Ok),
            Self::Routed(future) => Pin::new(future).poll(cx),
        }
    }
}

impl Service<hyper::Request<Incoming>> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = FrontFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: hyper::Request<Incoming>) -> FrontFuture {
        if request.uri().path() == Route::QueueStatus.template() {
            if *request.method() == Method::GET {
                let app = self.app.clone();
                return FrontFuture::Poll(self.observer.start(
                    Route::QueueStatus,
                    request,
                    |request| PollNow { app, request },
                ));
            }
            if *request.method() == Method::POST {
                return FrontFuture::Boxed(self.observer.start(
                    Route::QueueJoin,
                    request,
                    |request| -> Boxed {
                        let app = self.app.clone();
                        Box::pin(queue::join_from(app, request))
                    },
                ));
            }
        } else if *request.method() == Method::POST
            && let Some(ids) =
                PathIds::<2>::of(request.uri().path(), Route::ReservationCreate.template())
        {
            return FrontFuture::Boxed(self.observer.start(
                Route::ReservationCreate,
                request,
                |request| -> Boxed {
                    let app = self.app.clone();
                    Box::pin(reservations::create_from(app, ids, request))
                },
            ));
        }
        FrontFuture::Routed(self.router.call(request.map(Body::new)))
    }
}
