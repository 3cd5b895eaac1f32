//! The admin plane: operators deploy, look, suspend, stop and read the bill here.
//!
//! One file a resource, each handler thin: decode, one call, encode. `guard` decides who may, `model` holds the JSON,
//! and the OpenAPI document at `/openapi.json` is made from the handlers themselves. Never on a request's way.

mod functions;
mod guard;
mod health;
mod instances;
mod logs;
pub mod model;
mod reject;
mod usage;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::middleware;
use axum::routing::get;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tower::ServiceExt as _;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::AdminConfig;
use crate::http::linger::Lingering;
use crate::http::listener::{self, Service};
use crate::parts::Parts;
use crate::shutdown::Tasks;

/// Connections that operators may have open at once.
const CONNECTIONS_MAX: usize = 1000;

/// What the handlers share.
struct Plane {
    parts: Arc<Parts>,
    config: AdminConfig,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Dormouse admin API",
        description = "Deploys functions, shows and steers their instances, and answers what they used. Errors are \
                       `application/problem+json`."
    ),
    components(schemas(model::Problem))
)]
struct Document;

/// Serves operators until the host closes.
pub async fn serve(listener: TcpListener, parts: Arc<Parts>, config: AdminConfig) {
    let tasks = parts.tasks.clone();
    let pages = Pages { tasks: tasks.clone(), router: router(parts, config) };
    listener::serve(listener, pages, CONNECTIONS_MAX, tasks).await;
}

/// The admin plane's handlers.
struct Pages {
    router: Router,
    tasks: Tasks,
}

impl Service for Pages {
    type Body = Body;

    async fn answer(&self, request: http::Request<Incoming>) -> http::Response<Body> {
        let request = request.map(|body| Body::new(Lingering::new(body, self.tasks.clone())));
        match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

fn router(parts: Arc<Parts>, config: AdminConfig) -> Router {
    let plane = Arc::new(Plane { parts, config });
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(functions::list))
        .routes(routes!(functions::show, functions::configure, functions::delete))
        .routes(routes!(functions::deploy))
        .routes(routes!(functions::suspend))
        .routes(routes!(functions::resume))
        .routes(routes!(instances::list))
        .routes(routes!(instances::show))
        .routes(routes!(instances::stop))
        .routes(routes!(logs::read))
        .routes(routes!(usage::sums))
        .routes(routes!(usage::windows))
        .routes(routes!(usage::invocations))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .split_for_parts();
    router
        .route("/openapi.json", get(async move || axum::Json(document)))
        .fallback(reject::no_such_path)
        .method_not_allowed_fallback(reject::wrong_method)
        .layer(middleware::from_fn_with_state(plane.clone(), guard::admit))
        .with_state(plane)
}
