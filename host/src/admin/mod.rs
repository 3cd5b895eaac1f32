//! The admin plane: operators deploy, publish, look, suspend, stop and read the bill here.
//!
//! One file a resource, each handler thin: decode, one call of [`Host`], encode. `guard` decides who may, `model` holds
//! the JSON, and the OpenAPI document at `/openapi.json` is made from the handlers themselves. Never on a request's way.

mod aliases;
mod audit;
mod functions;
mod guard;
mod health;
mod host;
mod instances;
mod invocations;
mod invoke;
mod keys;
mod logs;
pub mod model;
mod query;
mod reject;
mod triggers;
mod usage;
mod versions;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::middleware;
use axum::routing::get;
use http::header;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::ServiceExt as _;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::audit::Actions;
use crate::config::AdminConfig;
use crate::console::{self, Console};
use crate::fc::{self, Fc};
use crate::host::Host;
use crate::ids::RequestId;
use crate::operator::entrance::Entrance;
use crate::queue::Queue;
use crate::room::Room;
use crate::shutdown::Tasks;
use crate::telemetry;
use crate::trigger::Triggers;
use crate::web::headers;
use crate::web::linger::Lingering;
use crate::web::listener;
use crate::web::problem::Failure;
use crate::web::service::{Client, Service};
use crate::web::tls::Tls;

/// What the handlers share.
struct Plane {
    host: Arc<Host>,
    queue: Arc<Queue>,
    triggers: Triggers,
    entrance: Arc<Entrance>,
    config: AdminConfig,
    /// Memory for components until they are deployed.
    uploads: Arc<Room>,
    /// Where callers reach functions.
    data: SocketAddr,
    /// What the audit log calls changes.
    actions: Actions,
    /// Searches of logs that may run.
    searches: Arc<Semaphore>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Dormouse admin API",
        description = "Deploys functions, shows and steers their instances, and answers what they used. Errors are \
                       `application/problem+json`."
    ),
    components(schemas(model::Problem)),
    modifiers(&Keys),
    security(("key" = []), ())
)]
struct Document;

/// Says how keys are sent.
struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let key = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An access key, or the admin token; a plane on loopback without them asks for none"));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(key.build()));
    }
}

/// Serves operators until the host closes.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    (triggers, fc): (Triggers, Arc<Fc>),
    config: AdminConfig,
    data: SocketAddr,
) {
    let (tasks, connections) = (triggers.queue().host().tasks().clone(), config.connections.clone());
    let uploads = fc.uploads_room().clone();
    let has_tls = tls.is_some();
    let (host, queue) = (triggers.queue().host().clone(), triggers.queue().clone());
    let entrance = Arc::new(Entrance::new(host, &config));
    let router = router(triggers, (config, entrance.clone()), uploads, data);
    let console = Console::new(queue, entrance, router.clone(), has_tls);
    let pages = Pages { tasks: tasks.clone(), router, fc, console };
    listener::serve(listener, tls, pages, connections, tasks).await;
}

/// The admin plane's handlers.
struct Pages {
    router: Router,
    fc: Arc<Fc>,
    console: Arc<Console>,
    tasks: Tasks,
}

impl Service for Pages {
    type Body = Body;

    async fn answer(&self, mut request: http::Request<Incoming>, client: Client) -> http::Response<Body> {
        if fc::is_own(request.uri().path()) {
            return self.fc.answer(request, client, fc::Listener::Admin).await.map(Body::new);
        }
        if console::is_own(request.uri().path()) {
            return self.console.answer(request, client).await;
        }
        request.extensions_mut().insert(client);
        let id = headers::request_id(request.headers());
        let request = request.map(|body| Body::new(Lingering::new(body, self.tasks.clone())));
        let Ok(mut response) = telemetry::about(&id, self.router.clone().oneshot(request)).await;
        if let Some(failure) = response.extensions_mut().remove::<Failure>() {
            return answer_with(failure, response, &id);
        }
        response.headers_mut().insert(headers::REQUEST_ID, headers::value(&id));
        response
    }
}

/// The problem that a handler ended with, and the methods that the router knows for its path.
fn answer_with(failure: Failure, mut response: http::Response<Body>, request: &RequestId) -> http::Response<Body> {
    let mut problem = failure.reply(request).map(Body::new);
    if let Some(methods) = response.headers_mut().remove(header::ALLOW) {
        problem.headers_mut().insert(header::ALLOW, methods);
    }
    problem
}

fn router(
    triggers: Triggers,
    (config, entrance): (AdminConfig, Arc<Entrance>),
    uploads: Arc<Room>,
    data: SocketAddr,
) -> Router {
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(functions::list))
        .routes(routes!(functions::show, functions::configure, functions::delete))
        .routes(routes!(functions::deploy))
        .routes(routes!(functions::suspend))
        .routes(routes!(functions::resume))
        .routes(routes!(functions::disable))
        .routes(routes!(functions::enable))
        .routes(routes!(versions::list, versions::publish))
        .routes(routes!(versions::show, versions::delete))
        .routes(routes!(aliases::list))
        .routes(routes!(aliases::show, aliases::set, aliases::delete))
        .routes(routes!(aliases::roll_back))
        .routes(routes!(instances::list))
        .routes(routes!(instances::show))
        .routes(routes!(instances::stop))
        .routes(routes!(invoke::invoke))
        .routes(routes!(invocations::list))
        .routes(routes!(invocations::show))
        .routes(routes!(invocations::stop))
        .routes(routes!(invocations::replay))
        .routes(routes!(invocations::replay_all))
        .routes(routes!(invocations::webhook_secret))
        .routes(routes!(triggers::list))
        .routes(routes!(triggers::fire))
        .routes(routes!(logs::read))
        .routes(routes!(usage::sums))
        .routes(routes!(usage::windows))
        .routes(routes!(usage::invocations))
        .routes(routes!(host::show))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::show, keys::revoke))
        .routes(routes!(keys::rotate))
        .routes(routes!(audit::list))
        .split_for_parts();
    let queue = triggers.queue().clone();
    let host = queue.host().clone();
    let plane = {
        let (actions, searches) = (Actions::of(&document), Arc::new(Semaphore::new(logs::SEARCHES_MAX)));
        Arc::new(Plane { host, queue, triggers, entrance, config, uploads, data, actions, searches })
    };
    router
        .route("/openapi.json", get(async move || axum::Json(document)))
        .fallback(reject::no_such_path)
        .method_not_allowed_fallback(reject::wrong_method)
        .layer(middleware::from_fn_with_state(plane.clone(), guard::admit))
        .with_state(plane)
}
