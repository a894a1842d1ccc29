//! The API's description: the list of endpoints, and what their handlers take.

use std::sync::OnceLock;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, PathItem};
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Content, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi, ToSchema};

use super::access::ADMIN_SCHEME;
use super::auth::{PERSON_SCHEME, TICKET_SCHEME};
use super::describe::Description;
use super::problem::{ErrorCode, PROBLEM_JSON};
use super::schema::ProblemDocument;
use super::{
    admin, admission_log, calling_off, concert_tickets, concerts, console, gate, keys, lists, live,
    operators, ops, payments, plans, points, queue, refunds, reservations, seat_list, seat_states,
    sign_in,
};
use crate::app::AppState;
use crate::audit::AuditReport;
use crate::challenge;
use crate::endpoints::{Route, endpoints};
use crate::health::Health;
use crate::plans::PlanReport;

#[derive(OpenApi)]
#[openapi(
    info(title = "boxoffice", description = "Concert tickets when everybody comes at once. Join a waiting queue, get a ticket, poll until it is ACTIVATED, pick seats, hold them, pay with points.", license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")),
    tags(
        (name = "queue", description = "The waiting queue"),
        (name = "concerts", description = "What is for sale"),
        (name = "sales", description = "Reservations and payments"),
        (name = "points", description = "The money"),
        (name = "people", description = "Who has signed in on the pages"),
        (name = "operations", description = "Health and metrics"),
        (name = "admin", description = "For operators"),
        (name = "console", description = "Signing in to the console of operators"),
    ),
    components(schemas(ProblemDocument)),
    modifiers(&Security, &Endpoints),
)]
struct Api;

/// The description.
pub fn document() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

/// The description as JSON, which does not change while the service runs.
pub(super) async fn show(State(app): State<AppState>) -> Response {
    static WITH_PEOPLE: OnceLock<Bytes> = OnceLock::new();
    static WITHOUT_PEOPLE: OnceLock<Bytes> = OnceLock::new();
    // Only maps with text keys are in it, so it always serialises.
    let json = |document| serde_json::to_vec(&document).unwrap_or_default().into();
    let document = match app.people {
        Some(_) => WITH_PEOPLE.get_or_init(|| json(document())),
        None => WITHOUT_PEOPLE.get_or_init(|| json(without_people())),
    };
    ([(CONTENT_TYPE, "application/json")], document.clone()).into_response()
}

/// The description where nobody is known: requests have to say whose they are.
fn without_people() -> utoipa::openapi::OpenApi {
    let mut document = document();
    let schemas = &mut document.components.get_or_insert_default().schemas;
    for name in [
        queue::JoinRequest::name(),
        reservations::ReserveRequest::name(),
        payments::PaymentRequest::name(),
        refunds::RefundRequest::name(),
    ] {
        if let Some(RefOr::T(Schema::Object(request))) = schemas.get_mut(name.as_ref()) {
            request.required.push("userId".to_owned());
        }
    }
    document
}

struct Security;

impl Modify for Security {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let ticket = ApiKeyValue::with_description("QUEUE-TOKEN", "The ticket that joining gave");
        components
            .add_security_scheme(TICKET_SCHEME, SecurityScheme::ApiKey(ApiKey::Header(ticket)));
        let person = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT");
        let person = person.description(Some("With `auth.mode = \"jwt\"`: a token of the issuer"));
        components.add_security_scheme(PERSON_SCHEME, SecurityScheme::Http(person.build()));
        let admin = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
            "An operator's token (`boxoffice operator add`), or the one from the configuration \
                 or `admin.token` in the data directory, which may do everything",
        ));
        components.add_security_scheme(ADMIN_SCHEME, SecurityScheme::Http(admin.build()));
    }
}

/// How every endpoint may refuse: before its handler is asked, for want of room, or at fault.
const ANY_ENDPOINT: [ErrorCode; 6] = [
    ErrorCode::InvalidHeader,
    ErrorCode::UriTooLong,
    ErrorCode::TooManyConnections,
    ErrorCode::HeadersTooLarge,
    ErrorCode::Internal,
    ErrorCode::Overloaded,
];

/// An endpoint, as the list has it.
struct Endpoint {
    route: Route,
    summary: &'static str,
    tag: &'static str,
    id: &'static str,
    answers: Vec<(u16, &'static str, Option<Body>)>,
    errors: &'static [ErrorCode],
}

/// The body of an answer, with what headers come along.
struct Body {
    media_types: Vec<&'static str>,
    schema: RefOr<Schema>,
    schemas: Vec<(String, RefOr<Schema>)>,
    headers: Vec<(&'static str, &'static str)>,
    /// Whether the client may have a table of it instead.
    or_csv: bool,
}

/// A JSON document.
fn json<T: ToSchema>() -> Body {
    let mut schemas = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut schemas);
    let schema = Ref::from_schema_name(T::name()).into();
    let media_types = vec!["application/json"];
    Body { media_types, schema, schemas, headers: Vec::new(), or_csv: false }
}

/// A text of some type.
fn text(media_type: &'static str) -> Body {
    let schema = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).into();
    let media_types = vec![media_type];
    Body { media_types, schema, schemas: Vec::new(), headers: Vec::new(), or_csv: false }
}

impl Body {
    /// Another document that it may be.
    fn or_json<T: ToSchema>(mut self) -> Self {
        self.schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(&mut self.schemas);
        let either = AnyOfBuilder::new().item(self.schema).item(Ref::from_schema_name(T::name()));
        Self { schema: either.into(), ..self }
    }

    /// Another type that the same may have.
    fn or(mut self, media_type: &'static str) -> Self {
        self.media_types.push(media_type);
        self
    }

    fn header(mut self, name: &'static str, description: &'static str) -> Self {
        self.headers.push((name, description));
        self
    }

    fn named(mut self, media_type: &'static str) -> Self {
        self.media_types = vec![media_type];
        self
    }

    fn or_csv(mut self) -> Self {
        self.or_csv = true;
        self.header("Link", "Where the next page is; none behind the last")
    }
}

macro_rules! http_method {
    (GET) => {
        HttpMethod::Get
    };
    (POST) => {
        HttpMethod::Post
    };
    (PATCH) => {
        HttpMethod::Patch
    };
    (DELETE) => {
        HttpMethod::Delete
    };
}

macro_rules! body {
    () => {
        None
    };
    ($body:expr) => {
        Some($body)
    };
}

macro_rules! describe_all {
    ($(
        #[doc = $summary:literal]
        $name:ident = $method:ident $template:literal $class:ident {
            $(handler: $handler:path,
            $(role: $role:ident,)?
            $(operation: $tag:literal $id:literal,
            answers: [$($status:literal $meaning:literal $(=> $body:expr)?),+ $(,)?],
            errors: [$($code:ident),* $(,)?],)?)?
        }
    )+) => {
        /// Adds every endpoint that has an operation.
        fn describe_all(openapi: &mut utoipa::openapi::OpenApi) {
            $($($(
                let endpoint = Endpoint {
                    route: Route::$name,
                    summary: $summary.trim(),
                    tag: $tag,
                    id: $id,
                    answers: vec![$(($status, $meaning, body!($($body)?))),+],
                    errors: &[$(ErrorCode::$code),*],
                };
                let asked = Description::of($handler, $template);
                endpoint.add_to(openapi, http_method!($method), asked);
            )?)?)+
        }
    };
}

endpoints!(describe_all);

struct Endpoints;

impl Modify for Endpoints {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        describe_all(openapi);
    }
}

impl Endpoint {
    fn add_to(
        self,
        openapi: &mut utoipa::openapi::OpenApi,
        method: HttpMethod,
        asked: Description,
    ) {
        let schemas = &mut openapi.components.get_or_insert_default().schemas;
        schemas.extend(asked.schemas);
        let role = self.route.role().map(|role| format!("Needs the role `{role}`."));
        let mut operation = OperationBuilder::new()
            .operation_id(Some(self.id))
            .tag(self.tag)
            .summary(Some(self.summary))
            .description(role)
            .request_body(asked.body);
        if !asked.parameters.is_empty() {
            operation = operation.parameters(Some(asked.parameters));
        }
        // Alternatives: without people, and with them.
        let security = asked.security;
        let with = asked.person.map(|person| match &security {
            None => SecurityRequirement::new(person, [""; 0]),
            Some(other) => other.clone().add(person, [""; 0]),
        });
        if let Some(with) = with {
            operation = operation.security(security.unwrap_or_default()).security(with);
            if let Some(person) = asked.person.filter(|_| asked.person_suffices) {
                operation = operation.security(SecurityRequirement::new(person, [""; 0]));
            }
        } else if let Some(security) = security {
            operation = operation.security(security);
        }
        let mut listed = Vec::new();
        for (status, meaning, body) in self.answers {
            let mut response = ResponseBuilder::new().description(meaning);
            if let Some(body) = body {
                schemas.extend(body.schemas);
                for media_type in body.media_types {
                    response =
                        response.content(media_type, Content::new(Some(body.schema.clone())));
                }
                if body.or_csv {
                    let table = ObjectBuilder::new().schema_type(Type::String);
                    response = response.content("text/csv", Content::new(Some(table)));
                }
                for (name, description) in body.headers {
                    let header = HeaderBuilder::new()
                        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
                        .description(Some(description));
                    response = response.header(name, header.build());
                }
            }
            listed.push(status);
            operation = operation.response(status.to_string(), response.build());
        }
        let refuses = |code: &ErrorCode| {
            ANY_ENDPOINT.contains(code) || self.errors.contains(code) || asked.errors.contains(code)
        };
        // In the order of the table, so that codes of one status stand together.
        let codes: Vec<ErrorCode> = ErrorCode::ALL.iter().copied().filter(refuses).collect();
        for same in codes.chunk_by(|a, b| a.status() == b.status()) {
            let status = same[0].status().as_u16();
            // The health document tells of a service that is down in its own words.
            if listed.contains(&status) {
                continue;
            }
            let names: Vec<&str> = same.iter().map(|code| code.as_str()).collect();
            let problem = Content::new(Some(Ref::from_schema_name("ProblemDocument")));
            let response =
                ResponseBuilder::new().description(names.join(", ")).content(PROBLEM_JSON, problem);
            operation = operation.response(status.to_string(), response.build());
        }
        let path = self.route.template();
        let item = PathItem::new(method, operation);
        match openapi.paths.paths.get_mut(path) {
            Some(others) => others.merge_operations(item),
            None => drop(openapi.paths.paths.insert(path.to_owned(), item)),
        }
    }
}
