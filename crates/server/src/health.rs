//! How the service and the parts that it works with are.

use std::sync::atomic::Ordering;

use boxoffice_backends::store::Store;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;

/// How the service is.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// `UP` where it can sell, else `DOWN`.
    pub status: HealthStatus,
    /// Each dependency.
    pub dependencies: Vec<Dependency>,
}

/// How something is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HealthStatus {
    /// It works.
    Up,
    /// It does not, and the service sells without it.
    Degraded,
    /// It does not.
    Down,
}

/// Something that the service works with.
#[derive(Serialize, ToSchema)]
pub struct Dependency {
    /// Its name.
    pub name: &'static str,
    /// Whether it works.
    pub status: HealthStatus,
    /// What is wrong with it, in general terms; the log says it exactly.
    #[schema(required, nullable)]
    pub detail: Option<&'static str>,
}

impl Health {
    /// Whether the service can sell.
    pub fn is_up(&self) -> bool {
        self.status == HealthStatus::Up
    }
}

/// How the service is now.
pub fn of(app: &App) -> Health {
    let part = |name, fault: Option<&'static str>| Dependency {
        name,
        status: if fault.is_none() { HealthStatus::Up } else { HealthStatus::Down },
        detail: fault,
    };
    let store_fault = app.store.stats().fault().map(|_| {
        if matches!(app.store, Store::Mysql(_)) {
            "the database does not answer as it should"
        } else {
            "the last write failed"
        }
    });
    let events_wait = app.events_wait.load(Ordering::Relaxed);
    let mut dependencies = vec![
        part("store", store_fault),
        part("queue", app.sequencer.queues().is_empty().then_some("there is no queue")),
        Dependency {
            name: "events",
            status: if events_wait { HealthStatus::Degraded } else { HealthStatus::Up },
            detail: events_wait.then_some("events wait in the store"),
        },
        part("service", app.is_draining().then_some("shutting down")),
    ];
    if let Some(redis) = app.sequencer.redis() {
        let away = || Dependency {
            name: "redis",
            status: HealthStatus::Degraded,
            detail: Some("away; joins and admission go through the store"),
        };
        dependencies.push(if redis.is_up() {
            part("redis", None)
        } else if app.sequencer.are_joins_elsewhere() {
            part("redis", Some("away here and not elsewhere; joins go to the other instances"))
        } else {
            away()
        });
    }
    if app.store.clock_check().is_some() {
        let is_off = app.store.clock_correction_ms().is_err();
        dependencies.push(part("clock", is_off.then_some("too far from the database's clock")));
    }
    let up = dependencies.iter().all(|part| part.status != HealthStatus::Down);
    let status = if up { HealthStatus::Up } else { HealthStatus::Down };
    Health { status, dependencies }
}
