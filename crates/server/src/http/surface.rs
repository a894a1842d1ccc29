//! Which endpoints a listener serves, where there is one for operators.

use crate::endpoints::Route;
use crate::pages::ASSETS;

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// Everything: there is one listener.
    All,
    /// Everything but what is for operators.
    Public,
    /// What is for operators, and health.
    Operators,
}

impl Surface {
    /// Whether a request with this path is answered here. A path that no endpoint has may be: it is 404
    /// all the same.
    pub(super) fn serves(self, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::Public => !is_for_operators(path),
            Self::Operators => is_for_operators(path) || is_for_both(path),
        }
    }
}

fn is_for_operators(path: &str) -> bool {
    const DOCUMENTS: [&str; 4] =
        ["/swagger-ui", "/openapi.json", "/metrics", "/actuator/prometheus"];
    ["/admin", "/ops"].iter().any(|under| {
        path.strip_prefix(under).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }) || path.starts_with("/swagger-ui/")
        || DOCUMENTS.contains(&path)
}

/// Pages on both sides are made of assets, and share some.
fn is_for_both(path: &str) -> bool {
    path.starts_with(ASSETS)
        || [Route::HealthLive, Route::HealthReady, Route::ErrorList]
            .iter()
            .any(|route| route.template() == path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoints::Class;

    #[test]
    fn every_endpoint_is_where_it_belongs() {
        for route in Route::ALL {
            let path = route.template();
            let is_public = Surface::Public.serves(path);
            let is_for_operators = Surface::Operators.serves(path);
            assert!(Surface::All.serves(path));
            match (route.class(), route) {
                (_, Route::NotFound | Route::MethodNotAllowed) => {}
                (Class::Admin, _)
                | (
                    _,
                    Route::Metrics | Route::MetricsActuator | Route::OpenApi | Route::SwaggerUi,
                ) => assert!(!is_public && is_for_operators, "{path}"),
                (
                    _,
                    Route::PageOps
                    | Route::PageOpsLogin
                    | Route::PageOpsSection
                    | Route::ConsoleLogin
                    | Route::ConsoleLogout,
                ) => assert!(!is_public && is_for_operators, "{path}"),
                (
                    _,
                    Route::HealthLive | Route::HealthReady | Route::ErrorList | Route::PageAsset,
                ) => {
                    assert!(is_public && is_for_operators, "{path}");
                }
                _ => assert!(is_public && !is_for_operators, "{path}"),
            }
        }
        for path in ["/swagger-ui", "/swagger-ui/index.css", "/admin", "/admin/v2/x", "/ops/"] {
            assert!(!Surface::Public.serves(path) && Surface::Operators.serves(path), "{path}");
        }
        for path in ["/", "/administration", "/metrics-of-mine", "/api/v1/concerts/admin", "/opsy"]
        {
            assert!(Surface::Public.serves(path) && !Surface::Operators.serves(path), "{path}");
        }
    }
}
