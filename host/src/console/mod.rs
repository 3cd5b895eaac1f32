//! The console: pages for people, on the operators' listener.
//!
//! A page is rendered here, and its parts again each second for whoever keeps it open, as server-sent events at the same
//! address. What a page shows comes from the operators' API, asked in this process on behalf of whoever looks, so that it has
//! the same rights; lists of thousands come from the host itself. Nothing is changed here: what can be changed, scripts of the
//! page change through the API. What functions wrote is text and never markup.

mod api;
mod assets;
mod audit;
mod bill;
mod function;
mod functions;
mod instances;
mod keys;
mod lanes;
mod live;
mod logs;
mod overview;
mod page;
mod parts;
mod rates;
mod sheets;
mod sign_in;
mod today;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use hyper::body::Incoming;
use maud::Markup;
use tokio::time::Instant;

use self::api::Api;
use self::page::Fragments;
use self::rates::Rates;
use self::today::Today;
use crate::host::Host;
use crate::operator::Operator;
use crate::operator::entrance::Entrance;
use crate::queue::Queue;
use crate::web::linger::Lingering;
use crate::web::problem::{Code, Failure};
use crate::web::service::Client;

/// Scripts, styles and connections come from this host only, and nothing in a page is a script or a style.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The console of a host.
pub struct Console {
    host: Arc<Host>,
    queue: Arc<Queue>,
    entrance: Arc<Entrance>,
    api: Api,
    rates: Rates,
    today: Today,
    started: Instant,
    has_tls: bool,
}

/// Whoever looks at a page.
#[derive(Clone)]
struct Seen {
    console: Arc<Console>,
    operator: Operator,
    /// What the page's scripts must show with changes, if the browser has a session.
    token: Option<String>,
    /// What the browser showed.
    fields: HeaderMap,
}

impl Seen {
    /// Whether it may still look: its key may be revoked, and its session may end, while a page is open.
    fn may_go_on(&self) -> bool {
        let has_session = self.token.is_none() || self.console.entrance.session(&self.fields).is_some();
        has_session && self.operator.is_current(self.console.host.access())
    }
}

/// Whether a path is one of the console's.
pub fn is_own(path: &str) -> bool {
    path == "/" || path == "/console" || path.starts_with("/console/")
}

impl Console {
    /// The console over the operators' API.
    pub fn new(queue: Arc<Queue>, entrance: Arc<Entrance>, api: Router, has_tls: bool) -> Arc<Console> {
        let (rates, today) = (Rates::default(), Today::default());
        let host = queue.host().clone();
        Arc::new(Console { host, queue, entrance, api: Api::new(api), rates, today, started: Instant::now(), has_tls })
    }

    /// Answers a request.
    pub async fn answer(self: &Arc<Self>, request: http::Request<Incoming>, client: Client) -> http::Response<Body> {
        let (head, body) = request.into_parts();
        let body = Lingering::new(body, self.host.tasks().clone());
        let path = head.uri.path();
        match (&head.method, path) {
            (&Method::POST, "/console/sign-in") => {
                return sealed(sign_in::sign_in(self, (&head.uri, &head.headers), body).await);
            }
            (&Method::POST, "/console/sign-out") => return sealed(sign_in::sign_out(self, &head.uri, &head.headers)),
            (&Method::GET | &Method::HEAD, "/console/sign-in") => {
                return sealed(html(StatusCode::OK, sign_in::page("")));
            }
            (&Method::GET | &Method::HEAD, _) => {}
            _ => {
                let failure = Failure::new(Code::MethodNotAllowed, "pages of the console are read with GET");
                let mut response = html(StatusCode::METHOD_NOT_ALLOWED, page::failed(&failure));
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
                return sealed(response);
            }
        }
        if let Some(file) = path.strip_prefix("/console/assets/") {
            return sealed(assets::answer(file));
        }
        let operator = self.entrance.recognise((&head.method, &head.uri, &head.headers), Some(&client));
        let answered = match operator {
            Ok(operator) => {
                let token = self.entrance.session(&head.headers).map(|session| session.token().to_owned());
                let seen = Seen { console: self.clone(), operator, token, fields: head.headers.clone() };
                self.show(&head.uri, &head.headers, seen).await
            }
            Err(failure) if failure.code == Code::Unauthorized => sign_in::redirect(),
            Err(failure) => html(failure.code.status(), page::failed(&failure)),
        };
        sealed(answered)
    }

    async fn show(&self, uri: &Uri, fields: &HeaderMap, seen: Seen) -> http::Response<Body> {
        let is_followed = fields.get(header::ACCEPT).is_some_and(|kinds| kinds == "text/event-stream");
        if uri.path() == "/console/bill.csv" {
            return sheets::answer(seen, uri)
                .await
                .unwrap_or_else(|failure| html(failure.code.status(), page::failed(&failure)));
        }
        let Some(view) = View::of(uri) else {
            let failure = Failure::new(Code::NotFound, "there is no such page; the list of functions is at `/`");
            return html(StatusCode::NOT_FOUND, page::failed(&failure));
        };
        if is_followed {
            // A page that is not there, or not for this operator, is told so, and a browser does not ask again.
            return match view.fragments(&seen).await {
                Ok(_) => live::follow(view, seen),
                Err(failure) => html(failure.code.status(), page::failed(&failure)),
            };
        }
        match view.page(&seen).await {
            Ok(page) => html(StatusCode::OK, page),
            Err(failure) => html(failure.code.status(), page::failed(&failure)),
        }
    }
}

/// What an address shows.
enum View {
    Overview,
    Functions(functions::List),
    Function(function::Shown),
    Instances(instances::Shown),
    Logs(logs::Shown),
    Bill(bill::Shown),
    Keys(keys::Shown),
    Audit,
}

/// What a query says, if it says something.
fn asked(uri: &Uri, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    pairs.find(|(own, _)| own == name).map(|(_, value)| value.into_owned()).filter(|value| !value.is_empty())
}

impl View {
    fn of(uri: &Uri) -> Option<View> {
        let query = |name: &str| asked(uri, name);
        let path: Vec<&str> = uri.path().split('/').skip(1).filter(|part| !part.is_empty()).collect();
        Some(match path.as_slice() {
            [] | ["console"] | ["console", "functions"] => View::Functions(functions::List::of(query)),
            ["console", "functions", name] => View::Function(function::Shown::of(name)?),
            ["console", "overview"] => View::Overview,
            ["console", "instances"] => View::Instances(instances::Shown::of(query)),
            ["console", "logs"] => View::Logs(logs::Shown::of(query)?),
            ["console", "bill"] => View::Bill(bill::Shown::of(query)?),
            ["console", "keys"] => View::Keys(keys::Shown::of(query)),
            ["console", "audit"] => View::Audit,
            _ => return None,
        })
    }

    async fn page(&self, seen: &Seen) -> Result<Markup, Failure> {
        match self {
            View::Overview => overview::page(seen).await,
            View::Functions(list) => list.page(seen).await,
            View::Function(shown) => shown.page(seen).await,
            View::Instances(shown) => shown.page(seen).await,
            View::Logs(shown) => shown.page(seen).await,
            View::Bill(shown) => shown.page(seen).await,
            View::Keys(shown) => shown.page(seen).await,
            View::Audit => audit::page(seen).await,
        }
    }

    /// The parts that change while somebody looks.
    async fn fragments(&self, seen: &Seen) -> Result<Fragments, Failure> {
        match self {
            View::Overview => overview::fragments(seen).await,
            View::Functions(list) => list.fragments(seen).await,
            View::Function(shown) => shown.fragments(seen).await,
            View::Instances(shown) => shown.fragments(seen).await,
            View::Bill(shown) => shown.fragments(seen).await,
            View::Logs(_) | View::Keys(_) | View::Audit => Ok(Fragments::new()),
        }
    }
}

fn html(status: StatusCode, page: Markup) -> http::Response<Body> {
    let mut response = http::Response::new(Body::from(page.into_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

/// The response with what keeps browsers from doing with it what nobody meant.
fn sealed(mut response: http::Response<Body>) -> http::Response<Body> {
    let fields = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    if !fields.contains_key(header::CACHE_CONTROL) {
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}
