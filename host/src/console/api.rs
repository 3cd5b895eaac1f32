//! The operators' API, asked in this process.

use axum::Router;
use axum::body::Body;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use tower::ServiceExt as _;

use crate::operator::Operator;
use crate::web::problem::{Code, Failure};

/// Asks on behalf of whoever looks at a page.
pub(super) struct Api {
    router: Router,
}

impl Api {
    pub(super) fn new(router: Router) -> Api {
        Api { router }
    }

    /// What the API answers to `GET path`.
    pub(super) async fn get<T: DeserializeOwned>(&self, operator: &Operator, path: &str) -> Result<T, Failure> {
        let internal = |error: &dyn std::fmt::Display| {
            tracing::error!("the console cannot read what {path} answers: {error}");
            Failure::new(Code::Internal, "the host's log says more")
        };
        let mut request = http::Request::new(Body::empty());
        *request.uri_mut() = path.parse().map_err(|error: http::uri::InvalidUri| internal(&error))?;
        request.extensions_mut().insert(operator.clone());
        let Ok(mut response) = self.router.clone().oneshot(request).await;
        if let Some(failure) = response.extensions_mut().remove::<Failure>() {
            return Err(failure);
        }
        let body = response.into_body().collect().await.map_err(|error| internal(&error))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| internal(&error))
    }
}
