//! Schemas of what has a form of its own on the wire: ids, amounts, problem documents.
//!
//! What does not belong here: schemas of requests and answers; they stand beside their handlers.

use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{OneOfBuilder, RefOr};

/// What the text of an id looks like.
pub(super) const ID_PATTERN: &str = "^[1-9][0-9]{0,17}$";

/// An id in a request: a whole number, or such a number as a string.
pub(super) fn id() -> Schema {
    number_or_text(ID_PATTERN).examples([json!(17), json!("17")]).build().into()
}

/// A list of such ids.
pub(super) fn ids() -> Schema {
    ArrayBuilder::new().items(RefOr::T(id())).min_items(Some(1)).build().into()
}

/// An id in an answer.
pub(super) fn id_out() -> Schema {
    whole().build().into()
}

/// An amount in a request.
pub(super) fn amount() -> Schema {
    number_or_text("^[1-9][0-9]{0,15}$").examples([json!(1000)]).build().into()
}

fn number_or_text(pattern: &str) -> OneOfBuilder {
    let text =
        ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).pattern(Some(pattern));
    OneOfBuilder::new().item(whole()).item(text)
}

fn whole() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Integer))
        .minimum(Some(1))
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
    /// What it is now that was to be changed, where somebody else has changed it.
    #[schema(value_type = Option<super::admin::CurrentSettings>)]
    current: Option<super::admin::CurrentSettings>,
}
