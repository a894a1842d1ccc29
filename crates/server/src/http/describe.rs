//! What extractors say of the requests that they read. So a handler's arguments describe what it
//! asks for, and nobody writes it down a second time.
//!
//! What does not belong here: what handlers answer, and the document as a whole; see `openapi`.

use std::ops::RangeInclusive;

use axum::extract::State;
use utoipa::ToSchema;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Required, Schema};

use super::problem::ErrorCode;
use super::schema::ID_PATTERN;

/// An extractor that the API's description can tell of.
pub(super) trait Described {
    /// Adds what a request must or may bring along for it, and what it refuses.
    fn describe(description: &mut Description);
}

/// What a handler asks of a request.
#[derive(Default)]
pub(super) struct Description {
    /// Names of the path's parameters that nobody has described yet, the last one first.
    names: Vec<&'static str>,
    /// Path parameters and headers.
    pub parameters: Vec<Parameter>,
    /// The body, where there is one.
    pub body: Option<RequestBody>,
    /// Who may ask, where not everybody may.
    pub security: Option<SecurityRequirement>,
    /// Who has to say who they are as well, where people are known.
    pub person: Option<&'static str>,
    /// Whether it is enough to say who one is, where people are known.
    pub person_suffices: bool,
    /// How extractors refuse.
    pub errors: Vec<ErrorCode>,
    /// The schemas that the above refers to.
    pub schemas: Vec<(String, RefOr<Schema>)>,
}

impl Description {
    /// The description of what `handler` asks for at a path.
    pub(super) fn of<T, H: DescribedHandler<T>>(_handler: H, template: &'static str) -> Self {
        let names = template.split('/').rev().filter_map(|segment| {
            segment.strip_prefix('{').and_then(|segment| segment.strip_suffix('}'))
        });
        let mut description = Self { names: names.collect(), ..Self::default() };
        H::describe(&mut description);
        description
    }

    /// Adds the path's next parameter, an id.
    pub(super) fn path_id(&mut self, names: &str) {
        self.path_parameter(names, "1", text().pattern(Some(ID_PATTERN)));
    }

    /// Adds the path's next parameter, the name of a queue.
    pub(super) fn path_queue(&mut self) {
        self.path_parameter("The queue's name", "main", text());
    }

    /// Adds the path's next parameter, the name of an operator.
    pub(super) fn path_operator(&mut self) {
        self.path_parameter("The operator's name", "desk-1", text());
    }

    /// Adds the path's next parameter, the digest of a plan.
    pub(super) fn path_digest(&mut self) {
        let schema = text().pattern(Some("^[0-9a-f]{64}$"));
        self.path_parameter("The digest of the plan", &"0".repeat(64), schema);
    }

    /// Adds a parameter that the query may have, one of these words.
    pub(super) fn query(&mut self, name: &str, description: &str, words: &[&str]) {
        let schema = text().enum_values(Some(words.iter().copied()));
        self.query_parameter(name, description, schema);
    }

    /// Adds a text that the query may have, of so many characters at the most where there is a limit.
    pub(super) fn query_text(&mut self, name: &str, description: &str, max: Option<usize>) {
        self.query_parameter(name, description, text().max_length(max));
    }

    fn query_parameter(&mut self, name: &str, description: &str, schema: ObjectBuilder) {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some(description))
            .schema(Some(schema));
        self.parameters.push(parameter.build());
    }

    fn path_parameter(&mut self, description: &str, example: &str, schema: ObjectBuilder) {
        // Where a handler asks for more than its path has, `operations.rs` of the tests sees it.
        let Some(name) = self.names.pop() else { return };
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some(description))
            .schema(Some(schema))
            .example(Some(example.into()));
        self.parameters.push(parameter.build());
    }

    /// Adds a header that a request may have.
    pub(super) fn header(&mut self, name: &str, description: &str, pattern: Option<&str>) {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(description))
            .schema(Some(text().pattern(pattern)));
        self.parameters.push(parameter.build());
    }

    /// Adds a cookie that a request may have.
    pub(super) fn cookie(&mut self, name: &str, description: &str) {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Cookie)
            .required(Required::False)
            .description(Some(description))
            .schema(Some(text()));
        self.parameters.push(parameter.build());
    }

    /// Adds a number that the query may have, within a range.
    pub(super) fn query_number(
        &mut self,
        name: &str,
        description: &str,
        example: u32,
        range: RangeInclusive<i64>,
    ) {
        let number = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer));
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some(description))
            .schema(Some(number.minimum(Some(*range.start())).maximum(Some(*range.end()))))
            .example(Some(example.into()));
        self.parameters.push(parameter.build());
    }

    /// Asks for a JSON body.
    pub(super) fn json_body<T: ToSchema>(&mut self) {
        self.schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(&mut self.schemas);
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(T::name()))).build();
        let body = RequestBodyBuilder::new().content("application/json", content);
        self.body = Some(body.required(Some(Required::True)).build());
    }

    /// Asks for one of the security schemes of the document.
    pub(super) fn secured(&mut self, scheme: &str) {
        self.security = Some(SecurityRequirement::new(scheme, [""; 0]));
    }

    /// Asks for one more of the security schemes, where people are known.
    pub(super) fn may_be_secured(&mut self, scheme: &'static str) {
        self.person = Some(scheme);
    }

    /// Says that where people are known, that one is enough.
    pub(super) fn person_suffices(&mut self) {
        self.person_suffices = true;
    }

    /// Adds codes that the extractor refuses with.
    pub(super) fn errors(&mut self, codes: &[ErrorCode]) {
        self.errors.extend(codes);
    }
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String))
}

/// A handler whose extractors all describe themselves.
pub(super) trait DescribedHandler<T> {
    /// Adds what the handler asks for.
    fn describe(description: &mut Description);
}

macro_rules! handlers {
    ($(($($argument:ident),*))+) => {
        $(impl<H, R, $($argument: Described),*> DescribedHandler<($($argument,)*)> for H
        where
            H: Fn($($argument),*) -> R,
        {
            fn describe(_description: &mut Description) {
                $($argument::describe(_description);)*
            }
        })+
    };
}

handlers! {
    ()
    (A)
    (A, B)
    (A, B, C)
    (A, B, C, D)
    (A, B, C, D, E)
    (A, B, C, D, E, F)
}

/// The service's own state is nothing that a request brings along.
impl<S> Described for State<S> {
    fn describe(_: &mut Description) {}
}
