//! Function Compute's APIs 2016-08-15, 2021-04-06 and 2023-03-30: all of them on the admin listener, and calls on the data
//! listener as well.
//!
//! They are adapters. A request is found in the table of `api.rs`, `signature.rs` and `caller.rs` say who sends it, one of the
//! files named after what it is about asks [`Host`] for what `/v1` would ask for, and the answer is what Function Compute's
//! clients read. Services, which this host does not know, are in `service.rs`, and what has no counterpart is kept in `store.rs`.

mod alias;
mod api;
mod asynchronous;
mod body;
mod caller;
mod code;
mod domain;
mod environment;
mod fault;
mod files;
mod function;
mod functions;
mod input;
mod invoke;
mod other;
mod request;
mod run;
mod scaling;
mod service;
mod signature;
mod store;
mod tag;
mod trigger;
mod version;
mod written;

use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::Map;

pub use self::api::{Api, OPERATIONS, Op, Support};
use self::caller::{Head, Nonces};
pub use self::code::checksum as code_checksum;
use self::fault::Fault;
use self::files::Uploads;
pub use self::invoke::http_error;
use self::request::{Asked, Reply};
use self::signature::Signature;
use self::store::Store;
pub use self::written::Written;
use crate::access::{Change, Key, Right};
use crate::catalog::Address;
use crate::config::FcConfig;
use crate::guest::{Body, EventInput};
use crate::host::Host;
use crate::ids::{FunctionName, RequestId};
use crate::operator::{self, Operator};
use crate::queue::Queue;
use crate::room::Room;
use crate::telemetry;
use crate::web::event::EventReader;
use crate::web::headers;
use crate::web::linger::Lingering;
use crate::web::service::Client;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-fc-request-id");

/// The APIs.
pub struct Fc {
    host: Arc<Host>,
    queue: Arc<Queue>,
    store: Store,
    nonces: Nonces,
    uploads: Arc<Uploads>,
    events: EventReader,
    /// Memory for code until it is deployed, which the admin plane's own uploads share.
    room: Arc<Room>,
    config: FcConfig,
    reach: Reach,
    /// Services as they were read last.
    services: service::Read,
    /// Held by whoever changes something: a change may be several of the host's.
    changing: tokio::sync::Mutex<()>,
}

/// Where clients reach the host, beside the name that they use for it.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// The port of the admin listener.
    pub admin: u16,
    /// The port of the data listener.
    pub data: u16,
    /// Whether both speak TLS.
    pub has_tls: bool,
}

impl Reach {
    fn scheme(self) -> &'static str {
        if self.has_tls { "https" } else { "http" }
    }
}

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// The operators'.
    Admin,
    /// The callers'.
    Data,
}

/// Whether an address is an HTTP trigger or a custom domain of these APIs.
pub fn is_address(address: &Address) -> bool {
    address.trigger.is_own(&address.function) || domain::is_route(&address.name)
}

/// Whether a path is one of the APIs', with their version first.
pub fn is_api(path: &str) -> bool {
    let version = path.split('/').nth(1);
    Api::ALL.iter().any(|api| Some(api.as_str()) == version)
}

/// Whether a path is one of these APIs'. What looks like an API of another version is theirs too, so that the answer is one that
/// clients read.
pub fn is_own(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let is_date = first.len() == 10
        && first
            .bytes()
            .enumerate()
            .all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() });
    is_date || path.starts_with(files::CODE_PATH) || files::upload_of(path).is_some()
}

impl Fc {
    /// Opens what the APIs keep in the state directory.
    pub fn open(
        queue: Arc<Queue>,
        state_dir: &Path,
        room: Arc<Room>,
        (config, reach): (FcConfig, Reach),
    ) -> anyhow::Result<Arc<Fc>> {
        let host = queue.host().clone();
        Ok(Arc::new(Fc {
            store: Store::open(&state_dir.join("fc.sqlite"), config.services_max, host.tasks().clone())?,
            nonces: Nonces::new(config.nonces_max),
            uploads: Arc::new(Uploads::open(state_dir.join("fc-uploads"), config.uploads_bytes_max)?),
            events: EventReader::new(config.event_bytes_max),
            host,
            queue,
            room,
            config,
            reach,
            services: service::Read::default(),
            changing: tokio::sync::Mutex::default(),
        }))
    }

    /// Memory for code until it is deployed.
    pub fn uploads_room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Answers a request.
    pub async fn answer(
        &self,
        request: http::Request<Incoming>,
        client: Client,
        listener: Listener,
    ) -> http::Response<Body> {
        // Not the caller's own, by which it could ask for the lines of another's call.
        let id = RequestId::new();
        // Boxed, so that the many operations are not a part of every request's future.
        let replying: BoxFuture<'_, Result<Reply, Fault>> = Box::pin(self.reply(request, (client, listener), &id));
        let answered = telemetry::about(&id, replying).await;
        let reply = answered.unwrap_or_else(|fault| {
            let mut reply = Reply::json(fault.body(&id));
            reply.status = fault.status;
            reply
        });
        let mut response = http::Response::new(reply.body);
        *response.status_mut() = reply.status;
        *response.headers_mut() = reply.fields;
        response.headers_mut().insert(REQUEST_ID, headers::value(&id));
        response
    }

    /// The key that a request for a function's own address is signed with, if it is.
    pub fn signer(&self, method: &Method, uri: &Uri, fields: &HeaderMap) -> Result<Option<Arc<Key>>, String> {
        let signature = Signature::read(method, uri, fields);
        let signature = signature.and_then(|signature| match signature {
            // Its hash of the body could be checked only when the function has the body already.
            Some(signature) if signature.nonce().is_some() => {
                Err(Fault::denied("addresses of functions take signatures of the form `FC id:signature` only"))
            }
            signature => Ok(signature),
        });
        let key = signature.and_then(|signature| caller::signer(self.host.access(), &self.nonces, signature.as_ref()));
        key.map_err(|fault| fault.message.into_owned())
    }

    async fn reply(
        &self,
        request: http::Request<Incoming>,
        (client, listener): (Client, Listener),
        id: &RequestId,
    ) -> Result<Reply, Fault> {
        let (Parts { method, uri, headers: fields, .. }, body) = request.into_parts();
        let body = Lingering::new(body, self.host.tasks().clone());
        if uri.path().starts_with(files::CODE_PATH) && method == Method::GET {
            return files::fetch(self, &uri).await;
        }
        if let Some(name) = files::upload_of(uri.path()).filter(|_| method == Method::PUT) {
            files::check(self, name)?;
            let (bytes, _share) = self.read_code(&fields, body, self.code_bytes_max()).await?;
            return files::put(self, name, bytes).await;
        }
        let (api, op, names) = find(&method, &uri)?;
        let is_call = matches!(op, Op::InvokeServiceFunction | Op::InvokeFunction);
        if listener == Listener::Data && !is_call {
            return Err(Fault::denied("this listener takes calls only; everything else is the admin listener's"));
        }
        let head = Head { uri: &uri, fields: &fields };
        let signature = Signature::read(&method, &uri, &fields)?;
        let signer = caller::signer(self.host.access(), &self.nonces, signature.as_ref())?;
        let operator = match (listener, signer) {
            (Listener::Data, Some(key)) => Operator::Key(key),
            (Listener::Data, None) => self.bearer(&fields)?,
            (Listener::Admin, signer) => {
                caller::operator(self.host.access(), self.config.is_open, (&head, &client), signer)?
            }
        };
        let covers = |body: &[u8]| match signature.as_ref().filter(|_| matches!(operator, Operator::Key(_))) {
            Some(signature) if !signature.covers(body) => Err(Fault::new(
                StatusCode::FORBIDDEN,
                "SignatureNotMatch",
                "x-acs-content-sha256 is not the SHA-256 of the body that came",
            )),
            Some(_) | None => Ok(()),
        };
        let mut asked = self.asked(((api, op, names), method != Method::GET), &uri, &fields, (operator.clone(), id));
        if is_call {
            asked.operator.check_call(&asked)?;
            let (bytes, share) = self.events.read(self.host.event_room(), self.host.tasks(), &fields, body).await?;
            covers(&bytes)?;
            return invoke::run(self, &asked, EventInput { bytes, share }).await;
        }
        self.check_right(&asked)?;
        let has_code = matches!(
            op,
            Op::CreateFunction | Op::CreateServiceFunction | Op::UpdateFunction | Op::UpdateServiceFunction
        );
        let bytes_max = if has_code { self.code_bytes_max() } else { body::JSON_BYTES_MAX };
        let (bytes, _share) = self.read_code(&fields, body, bytes_max).await?;
        covers(&bytes)?;
        asked.json = input::parse(&bytes)?;
        drop(bytes);
        if asked.is_change {
            return self.noted(&asked, &client).await;
        }
        self.run(&asked).await
    }
}

fn find(method: &Method, uri: &Uri) -> Result<(Api, Op, api::Names), Fault> {
    let segments: Option<Vec<String>> = uri
        .path()
        .split('/')
        .skip(1)
        .map(|segment| percent_decode_str(segment).decode_utf8().ok().map(|text| text.into_owned()))
        .collect();
    let segments = segments.ok_or_else(|| Fault::invalid("the path is not UTF-8"))?;
    let version = segments.first().map(String::as_str).unwrap_or_default();
    let found = Api::ALL.into_iter().find(|api| api.as_str() == version);
    found.and_then(|api| api::find(api, method, &segments[1..]).map(|(op, names)| (api, op, names))).ok_or_else(|| {
        let path: String = uri.path().chars().take(256).collect();
        let known =
            if found.is_none() { "; the APIs of this host are 2016-08-15, 2021-04-06 and 2023-03-30" } else { "" };
        let message = format!("'{method}' against '{path}' is not supported{known}");
        Fault::new(StatusCode::BAD_REQUEST, "PathNotSupported", message)
    })
}

impl Operator {
    /// Refuses a call at once if it is clear that the caller may not make it, before its event is read.
    fn check_call(&self, asked: &Asked) -> Result<(), Fault> {
        match self {
            Operator::Key(_) => asked.check(Right::Invoke, asked.target()?.name.as_str()),
            Operator::Local | Operator::Certificate(_) | Operator::Nobody => Ok(()),
        }
    }
}

impl Fc {
    /// Who sends `Authorization: Bearer` to the data listener, as callers of this host do.
    fn bearer(&self, fields: &HeaderMap) -> Result<Operator, Fault> {
        let key = headers::bearer(fields).map(|token| self.host.access().recognise(token)).transpose()?.flatten();
        Ok(key.map_or(Operator::Nobody, Operator::Key))
    }

    fn asked(
        &self,
        ((api, op, names), is_change): ((Api, Op, api::Names), bool),
        uri: &Uri,
        fields: &HeaderMap,
        (operator, id): (Operator, &RequestId),
    ) -> Asked {
        let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let sent = fields.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = sent.map(|host| host.trim_start_matches("http://").trim_end_matches('/').to_owned());
        let host = host.or_else(|| uri.authority().map(Authority::to_string));
        let host = host.and_then(|host| host.parse().ok()).unwrap_or(Authority::from_static("localhost"));
        let data = format!("{}://{}:{}", self.reach.scheme(), host.host(), self.reach.data);
        // One published client leaves the port out.
        let host = if host.port().is_some() { host.to_string() } else { format!("{host}:{}", self.reach.admin) };
        let (fields, id) = (fields.clone(), id.clone());
        Asked { api, op, names, is_change, query, fields, json: Map::new(), operator, id, host, data }
    }

    /// Refuses what whoever asks may not do with what the path names. What only the body names, the operations check.
    fn check_right(&self, asked: &Asked) -> Result<(), Fault> {
        // Whoever may upload code may deploy it.
        let is_for_managers = asked.is_change || asked.op == Op::GetTempBucketToken;
        let right = if is_for_managers { Right::Manage } else { Right::Read };
        if asked.names.function.is_some() {
            return asked.check(right, asked.target()?.name.as_str());
        }
        match asked.service_target()? {
            Some((service, _)) => asked.check(right, &FunctionName::prefix_of(&service)),
            None => Ok(asked.operator.check_with_some(right)?),
        }
    }

    /// Makes a change between its two notes in the audit log.
    async fn noted(&self, asked: &Asked, client: &Client) -> Result<Reply, Fault> {
        let body = asked.body();
        let own = asked.names.function.as_deref().or(body.text("functionName")?);
        let function = own.and_then(|own| asked.target_of(own).ok()).map(|target| target.name.to_string());
        let service = asked.names.service.as_deref().or(body.text("serviceName")?).filter(|_| function.is_none());
        let item = asked.names.item.as_deref().or(body.text("aliasName")?).or(body.text("triggerName")?);
        let about: Vec<String> = service.into_iter().chain(item).map(|text| text.chars().take(128).collect()).collect();
        // Only what is allowed is noted, and what is not is refused before.
        match asked.op {
            Op::CreateService => asked.check(Right::Manage, &FunctionName::prefix_of(body.required("serviceName")?))?,
            Op::CreateFunction | Op::CreateServiceFunction => {
                asked.check(Right::Manage, asked.target_of(body.required("functionName")?)?.name.as_str())?;
            }
            Op::TagResource | Op::UntagResource | Op::TagResources | Op::UntagResources => tag::check(asked)?,
            _ => {}
        }
        let change = Change {
            operator: asked.operator.name(),
            address: client.address,
            action: asked.op.as_str().to_owned(),
            function,
            detail: about.join(": "),
        };
        operator::noted(&self.host, change, async |_| {
            let done = self.run(asked).await;
            match &done {
                Ok(reply) => {
                    let status = reply.status.as_u16();
                    (done, status, String::new())
                }
                Err(fault) => {
                    let (status, code) = (fault.status.as_u16(), fault.code.to_owned());
                    (done, status, code)
                }
            }
        })
        .await?
    }
}
