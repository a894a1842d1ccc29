//! The settings of a queue that operators change, as they are told: by a tag, and in full.

use boxoffice_backends::events::rfc3339;
use boxoffice_backends::store::settings_tag;
use boxoffice_domain::queue::QueueSettings;
use serde::Serialize;
use utoipa::ToSchema;

/// The settings of a queue that operators change.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CurrentSettings {
    /// Admissions a second.
    pub(super) admit_per_second: f64,
    /// How many may be active; null where that is not bounded.
    #[schema(required, nullable)]
    pub(super) max_active: Option<u64>,
    /// When it opens; null where no time is set.
    #[schema(required, nullable, format = DateTime)]
    pub(super) opens_at: Option<String>,
    /// Whether it is paused.
    pub(super) paused: bool,
    /// Stands for all of that, for `If-Match`.
    pub(super) etag: String,
}

impl CurrentSettings {
    pub(super) fn of(settings: &QueueSettings) -> Self {
        Self {
            admit_per_second: settings.admit_per_second,
            max_active: settings.max_active,
            opens_at: settings.opens_at.map(rfc3339),
            paused: settings.paused,
            etag: etag(settings),
        }
    }
}

/// What stands for settings of a queue, as an entity tag.
pub(super) fn etag(settings: &QueueSettings) -> String {
    format!("\"{}\"", settings_tag(settings))
}
