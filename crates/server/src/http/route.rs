//! The closed lists that requests are sorted into: which endpoint, and which class of work.

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};
use std::fmt::Write;

macro_rules! routes {
    ($($(#[$meta:meta])* $name:ident = $method:literal $template:literal $class:ident,)+) => {
        /// An endpoint. One variant per method and path template, so that a metric label and an
        /// array index can be had without looking at the request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Route {
            $($(#[$meta])* $name,)+
        }

        impl Route {
            /// Every endpoint, in declaration order; `Route::X as usize` is its index.
            pub const ALL: &[Route] = &[$(Route::$name,)+];

            /// The method it is registered under; `*` where it takes any.
            pub const fn method(self) -> &'static str {
                match self { $(Route::$name => $method,)+ }
            }

            /// The path template, with `{…}` for parameters.
            pub const fn template(self) -> &'static str {
                match self { $(Route::$name => $template,)+ }
            }

            /// The class whose limit it counts against.
            pub const fn class(self) -> Class {
                match self { $(Route::$name => Class::$class,)+ }
            }
        }
    };
}

routes! {
    /// Join a queue.
    QueueJoin = "POST" "/api/v1/waiting-queues" Join,
    /// A ticket's status.
    QueueStatus = "GET" "/api/v1/waiting-queues" Poll,
    /// Leave the queue.
    QueueLeave = "DELETE" "/api/v1/waiting-queues" Join,
    /// A queue's public document.
    QueuePublic = "GET" "/api/v1/waiting-queues/{queue}" Poll,
    /// All concerts.
    ConcertList = "GET" "/api/v1/concerts" Browse,
    /// Sessions of a concert.
    SessionList = "GET" "/api/v1/concerts/{id}/sessions" Browse,
    /// Seats of a session.
    SeatList = "GET" "/api/v1/concerts/{id}/sessions/{sessionId}/seats" Browse,
    /// Hold seats.
    ReservationCreate = "POST" "/api/v1/concerts/{id}/sessions/{sessionId}/reservations" Reservation,
    /// One reservation.
    ReservationGet = "GET" "/api/v1/reservations/{id}" Browse,
    /// Give a hold back.
    ReservationCancel = "DELETE" "/api/v1/reservations/{id}" Reservation,
    /// Pay for a reservation.
    PaymentCreate = "POST" "/api/v1/payments" Payment,
    /// Charge points.
    PointsCharge = "PATCH" "/api/v1/users/{id}/points/charge" Payment,
    /// Charge points, for clients that cannot PATCH.
    PointsChargeByPost = "POST" "/api/v1/users/{id}/points/charge" Payment,
    /// A user's points.
    PointsBalance = "GET" "/api/v1/users/{id}/points" Browse,
    /// The process runs.
    HealthLive = "GET" "/health/live" Ops,
    /// The service can serve.
    HealthReady = "GET" "/health/ready" Ops,
    /// Metrics.
    Metrics = "GET" "/metrics" Ops,
    /// Metrics, where existing scrape configurations look.
    MetricsActuator = "GET" "/actuator/prometheus" Ops,
    /// The OpenAPI document.
    OpenApi = "GET" "/openapi.json" Ops,
    /// The OpenAPI document for people.
    SwaggerUi = "GET" "/swagger-ui/" Ops,
    /// The list of error codes.
    ErrorList = "GET" "/docs/errors" Ops,
    /// All queues.
    AdminQueueList = "GET" "/admin/v1/queues" Admin,
    /// Create a queue.
    AdminQueueCreate = "POST" "/admin/v1/queues" Admin,
    /// Change how a queue admits.
    AdminQueueChange = "PATCH" "/admin/v1/queues/{queue}" Admin,
    /// Pause a queue.
    AdminQueuePause = "POST" "/admin/v1/queues/{queue}/pause" Admin,
    /// Resume a queue.
    AdminQueueResume = "POST" "/admin/v1/queues/{queue}/resume" Admin,
    /// Issue opaque tokens.
    AdminTokenIssue = "POST" "/admin/v1/tokens" Admin,
    /// Create a concert.
    AdminConcertCreate = "POST" "/admin/v1/concerts" Admin,
    /// Create a session.
    AdminSessionCreate = "POST" "/admin/v1/concerts/{id}/sessions" Admin,
    /// Add seats.
    AdminSeatCreate = "POST" "/admin/v1/concerts/{id}/sessions/{sessionId}/seats" Admin,
    /// Run the audit.
    AdminAudit = "GET" "/admin/v1/audit" Admin,
    /// No endpoint has this path.
    NotFound = "*" "(not found)" Ops,
    /// The path exists, but not with this method.
    MethodNotAllowed = "*" "(method not allowed)" Ops,
}

impl Route {
    /// How many endpoints there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The endpoint's index, for arrays of [`Route::COUNT`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl EncodeLabelValue for Route {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.template())
    }
}

/// What a request competes with. Each class has a limit of its own, so that a crowd that browses
/// cannot keep a buyer from paying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Payments and point charges.
    Payment,
    /// Reservations made and given back.
    Reservation,
    /// Queue status.
    Poll,
    /// Queue joins and leaves.
    Join,
    /// Concerts, sessions, seats, balances.
    Browse,
    /// The admin API.
    Admin,
    /// Health, metrics, documents: never shed, because that is when they are needed.
    Ops,
}

impl Class {
    /// Every class; `Class::X as usize` is its index.
    pub const ALL: [Class; 7] = [
        Class::Payment,
        Class::Reservation,
        Class::Poll,
        Class::Join,
        Class::Browse,
        Class::Admin,
        Class::Ops,
    ];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Class::Payment => "payment",
            Class::Reservation => "reservation",
            Class::Poll => "poll",
            Class::Join => "join",
            Class::Browse => "browse",
            Class::Admin => "admin",
            Class::Ops => "ops",
        }
    }

    /// The class's index in [`Class::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl EncodeLabelValue for Class {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_follow_the_lists() {
        for (index, route) in Route::ALL.iter().enumerate() {
            assert_eq!(route.index(), index);
        }
        for (index, class) in Class::ALL.iter().enumerate() {
            assert_eq!(class.index(), index);
        }
    }

    #[test]
    fn no_two_endpoints_share_their_labels() {
        let mut labels: Vec<_> = Route::ALL.iter().map(|r| (r.method(), r.template())).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Route::COUNT);
    }
}
