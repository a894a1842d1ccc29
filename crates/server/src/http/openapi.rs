//! The API's description, generated from the handlers.

use serde_json::json;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OneOfBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi, ToSchema};

use super::problem::{ErrorCode, PROBLEM_JSON};
use super::{admin, concerts, ops, payments, points, queue, reservations};

/// An id in a request: a whole number, or such a number as a string.
pub(super) fn id_schema() -> Schema {
    let text = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .pattern(Some("^[1-9][0-9]{0,17}$"));
    OneOfBuilder::new().item(whole(1)).item(text).examples([json!(17), json!("17")]).build().into()
}

/// A list of such ids.
pub(super) fn ids_schema() -> Schema {
    ArrayBuilder::new().items(RefOr::T(id_schema())).min_items(Some(1)).build().into()
}

/// An id in an answer.
pub(super) fn id_out_schema() -> Schema {
    whole(1).build().into()
}

/// An amount in a request.
pub(super) fn amount_schema() -> Schema {
    let text = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .pattern(Some("^[1-9][0-9]{0,15}$"));
    OneOfBuilder::new().item(whole(1)).item(text).examples([json!(1000)]).build().into()
}

fn whole(minimum: i64) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Integer))
        .minimum(Some(minimum))
        .maximum(Some(i64::MAX))
}

/// An error, as RFC 9457 has it.
#[derive(ToSchema)]
#[allow(dead_code)]
#[schema(rename_all = "camelCase")]
pub(super) struct ProblemDocument {
    /// Where the code is explained.
    r#type: String,
    /// A short summary that does not vary.
    title: String,
    /// The status code.
    status: u16,
    /// What is wrong with this very request.
    detail: String,
    /// The stable code.
    code: String,
    /// The same as `detail`.
    message: String,
    /// The id of the request, as in `X-Request-Id`.
    request_id: String,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "boxoffice", description = "Concert tickets when everybody comes at once. Join a waiting queue, get a ticket, poll until it is ACTIVATED, pick seats, hold them, pay with points.", license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")),
    tags(
        (name = "queue", description = "The waiting queue"),
        (name = "concerts", description = "What is for sale"),
        (name = "sales", description = "Reservations and payments"),
        (name = "points", description = "The money"),
        (name = "operations", description = "Health and metrics"),
        (name = "admin", description = "For operators"),
    ),
    paths(
        queue::join, queue::status, queue::leave, queue::document,
        concerts::list, concerts::sessions, concerts::seats,
        reservations::create, reservations::show, reservations::cancel,
        payments::create, points::charge, points::charge_by_post, points::balance,
        ops::live, ops::ready, ops::metrics, ops::metrics_actuator, ops::errors,
        admin::queues, admin::create_queue, admin::change_queue, admin::pause, admin::resume,
        admin::issue_tokens, admin::create_concert, admin::create_session, admin::create_seats,
        admin::run_audit,
    ),
    components(schemas(ProblemDocument)),
    modifiers(&Security, &Problems),
)]
struct Api;

/// The description.
pub fn document() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

struct Security;

impl Modify for Security {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let ticket = ApiKeyValue::with_description("QUEUE-TOKEN", "The ticket that joining gave");
        components
            .add_security_scheme("queueToken", SecurityScheme::ApiKey(ApiKey::Header(ticket)));
        let admin = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("From the configuration, or `admin.token` in the data directory"));
        components.add_security_scheme("adminToken", SecurityScheme::Http(admin.build()));
    }
}

/// Gives every operation the errors that it can answer with.
struct Problems;

impl Modify for Problems {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut openapi.paths.paths {
            let methods = [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete];
            for operation in methods.into_iter().flatten() {
                describe_problems(path, operation);
            }
        }
    }
}

fn describe_problems(path: &str, operation: &mut Operation) {
    let body = operation.request_body.is_some();
    let secured = operation.security.is_some();
    let sells = path.starts_with("/api/v1/concerts/")
        || path.starts_with("/api/v1/reservations")
        || path.starts_with("/api/v1/payments");
    // 400 and 414 come before any handler, 405 never for a documented method; 503 is the answer of
    // an overloaded service anywhere.
    let mut statuses = vec![400, 414, 431, 500, 503];
    if body {
        statuses.extend([408, 413, 415, 422]);
    }
    if secured {
        statuses.push(401);
    }
    if secured && sells {
        statuses.push(403);
    }
    if path.contains('{')
        || path.contains("/waiting-queues")
        || path.ends_with("/payments")
        || path.starts_with("/admin")
    {
        statuses.push(404);
    }
    if path.contains("/reservations")
        || path.ends_with("/payments")
        || path.starts_with("/admin")
        || path.ends_with("/charge")
    {
        statuses.extend([409, 504]);
    }
    if path.ends_with("/payments") {
        statuses.push(402);
    }
    if path == "/api/v1/waiting-queues" {
        statuses.push(429);
    }
    let described = &mut operation.responses.responses;
    for status in statuses {
        let key = status.to_string();
        if described.contains_key(&key) {
            continue;
        }
        let codes: Vec<&str> = ErrorCode::ALL
            .iter()
            .filter(|code| code.status().as_u16() == status)
            .map(|code| code.as_str())
            .collect();
        let content =
            ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemDocument"))).build();
        let response = ResponseBuilder::new()
            .description(codes.join(", "))
            .content(PROBLEM_JSON, content)
            .build();
        described.insert(key, RefOr::T(response));
    }
}
