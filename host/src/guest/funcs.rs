//! The exports of one instance, ready to be called: with values for events, with resources for HTTP.

use std::sync::{Arc, Mutex, OnceLock};

use futures::future::BoxFuture;
use tokio::sync::oneshot;
use wasmtime::component::{Accessor, Instance, Resource, TypedFunc};
use wasmtime::{AsContextMut as _, Store};
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::p2::bindings::http::types as http_02;
use wasmtime_wasi_http::p3;
use wasmtime_wasi_http::p3::bindings::http::types as http_03;

use super::attribution::Origin;
use super::blueprint::Blueprint;
use super::call::{Call, CallContext, CallId, Entry, EventInput, Fault, Input, Reply, Returned};
use super::delivery::{Body, BodyError};
use super::exports::{HandlerParams, HandlerResults, Hook, HookParams, HookResults, InitializerResults, Protocol};
use super::hooks::{self, InstanceFields, Request};
use super::mailbox::Mailbox;
use super::world::World;

type Http02 = TypedFunc<(Resource<http_02::IncomingRequest>, Resource<http_02::ResponseOutparam>), ()>;
type Http03 = TypedFunc<(Resource<http_03::Request>,), (Result<Resource<http_03::Response>, http_03::ErrorCode>,)>;

/// The exports of one instance.
pub(super) struct Funcs {
    handler: Handler,
    initializer: Option<HookFunc<InitializerResults>>,
    pre_freeze: Option<HookFunc<HookResults>>,
    pre_stop: Option<HookFunc<HookResults>>,
    /// Made for the first request.
    fields: OnceLock<InstanceFields>,
}

enum Handler {
    Event(TypedFunc<HandlerParams, HandlerResults>),
    Http(HttpHandler),
}

enum HttpHandler {
    V02(Http02),
    V03(Http03),
}

enum HookFunc<R> {
    Export(TypedFunc<HookParams, R>),
    Request(Request),
}

/// The context of a call: its guest, its identifier and its origin.
#[derive(Clone, Copy)]
struct Site<'a> {
    accessor: &'a Accessor<World>,
    mailbox: &'a Arc<Mailbox>,
    id: CallId,
    origin: &'a Origin,
}

impl Site<'_> {
    /// Calls an export.
    async fn run<P, R>(self, func: &TypedFunc<P, R>, params: P) -> wasmtime::Result<R>
    where
        P: wasmtime::component::ComponentNamedList + wasmtime::component::Lower + Send + Sync + 'static,
        R: wasmtime::component::ComponentNamedList + wasmtime::component::Lift + Send + Sync + 'static,
    {
        let pending = self.accessor.with(|access| func.start_call_concurrent(access, params))?;
        self.mailbox.begin_call(self.id, pending.task(), self.origin.clone());
        func.finish_call_concurrent(self.accessor, pending).await
    }
}

impl Funcs {
    pub(super) async fn instantiate(blueprint: &Blueprint, store: &mut Store<World>) -> wasmtime::Result<Funcs> {
        let instance = blueprint.pre.instantiate_async(&mut *store).await?;
        let exports = &blueprint.exports;
        let index = exports.handler.index;
        let handler = match exports.protocol {
            Protocol::Event => Handler::Event(instance.get_typed_func(&mut *store, index)?),
            Protocol::Http02 => Handler::Http(HttpHandler::V02(instance.get_typed_func(&mut *store, index)?)),
            Protocol::Http03 => Handler::Http(HttpHandler::V03(instance.get_typed_func(&mut *store, index)?)),
        };
        Ok(Funcs {
            handler,
            initializer: hook(instance, store, exports.initializer.as_ref())?,
            pre_freeze: hook(instance, store, exports.pre_freeze.as_ref())?,
            pre_stop: hook(instance, store, exports.pre_stop.as_ref())?,
            fields: OnceLock::new(),
        })
    }

    /// Whether a call of the handler begins only when the one before has returned: the engine lets functions of 0.2, which
    /// may wait and are not `async`, run one by one.
    pub(super) fn handle_one_by_one(&self) -> bool {
        matches!(self.handler, Handler::Http(HttpHandler::V02(_)))
    }

    /// Makes a call and waits until the guest has finished it.
    pub(super) async fn call(
        &self,
        accessor: &Accessor<World>,
        mailbox: &Arc<Mailbox>,
        call: Call,
    ) -> wasmtime::Result<Returned> {
        let Call { id, entry, request, key, context, trace, input } = call;
        let origin = Origin { request, key, trace };
        let site = Site { accessor, mailbox, id, origin: &origin };
        match entry {
            Entry::Handler => self.handle(site, context, input).await,
            Entry::Initializer => match &self.initializer {
                None => Ok(Ok(Reply::Nothing)),
                Some(HookFunc::Export(func)) => {
                    let (returned,) = site.run(func, (context,)).await?;
                    Ok(returned.map(|()| Reply::Nothing).map_err(Fault::Failed))
                }
                Some(HookFunc::Request(request)) => self.send(site, context, *request).await,
            },
            Entry::PreFreeze | Entry::PreStop => {
                let func = if entry == Entry::PreFreeze { &self.pre_freeze } else { &self.pre_stop };
                match func {
                    None => Ok(Ok(Reply::Nothing)),
                    Some(HookFunc::Export(func)) => {
                        site.run(func, (context,)).await?;
                        Ok(Ok(Reply::Nothing))
                    }
                    Some(HookFunc::Request(request)) => self.send(site, context, *request).await,
                }
            }
        }
    }

    async fn handle(&self, site: Site<'_>, context: CallContext, input: Input) -> wasmtime::Result<Returned> {
        match (&self.handler, input) {
            (Handler::Event(func), Input::Event(event)) => {
                let EventInput { bytes, share } = event;
                let (returned,) = site.run(func, (context, bytes)).await?;
                drop(share);
                Ok(returned.map(Reply::Event).map_err(Fault::Failed))
            }
            (Handler::Http(handler), Input::Http(mut request)) => {
                self.tell(&mut request, &context);
                let (mailbox, id) = (site.mailbox.clone(), site.id);
                let respond = move |response| check_status(&response).map(|()| mailbox.respond(id, response));
                let answered = match handler.exchange(site, *request, respond).await? {
                    // Without a message, the host has dropped the response's body.
                    Ok(Ok(end)) => {
                        // Of 0.2 nothing goes on when the call has returned.
                        site.mailbox.note_return(site.id, self.handle_one_by_one());
                        end.await.unwrap_or(Ok(None))
                    }
                    Ok(Err(text)) => Err(text),
                    Err(fault) => return Ok(Err(fault)),
                };
                Ok(answered.map(|whole| whole.map_or(Reply::Nothing, Reply::Response)).map_err(Fault::BadResponse))
            }
            // `invoke` shapes inputs by the function's protocol, so this is a bug of the host. It must fail this call
            // only, not the instance's other requests.
            (Handler::Event(_), Input::Http(_) | Input::Nothing) => Ok(Err(does_not_fit("events"))),
            (Handler::Http(_), Input::Event(_) | Input::Nothing) => Ok(Err(does_not_fit("HTTP requests"))),
        }
    }

    fn tell(&self, request: &mut http::Request<Body>, context: &CallContext) {
        hooks::tell(request, context, self.fields.get_or_init(|| InstanceFields::of(context)));
    }

    /// Calls a hook by its request.
    async fn send(&self, site: Site<'_>, context: CallContext, hook: Request) -> wasmtime::Result<Returned> {
        let Handler::Http(handler) = &self.handler else { return Ok(Ok(Reply::Nothing)) };
        let mut request = hook.build();
        self.tell(&mut request, &context);
        let (respond, responded) = oneshot::channel();
        let respond = |response| {
            // The receiver lives as long as the exchange.
            let _ = respond.send(response);
        };
        // Read while the guest writes: it may wait until its response is read.
        let read = async {
            match responded.await {
                Ok(response) => hook.check(response).await.map_err(Fault::Failed),
                Err(_) => Ok(()), // No response; the exchange says why.
            }
        };
        let (exchanged, checked) = futures::join!(handler.exchange(site, request, respond), read);
        Ok(exchanged?.and(checked).map(|()| Reply::Nothing))
    }
}

fn does_not_fit(taken: &str) -> Fault {
    Fault::Failed(format!("the function's handler takes {taken}, and the host called it with something else"))
}

/// Refuses a status of 1xx, which only announces a response (RFC 9110, section 15.2).
fn check_status(response: &http::Response<Body>) -> Result<(), String> {
    let status = response.status();
    if status.is_informational() { Err(format!("its status is {status}, which ends no request")) } else { Ok(()) }
}

fn hook<R>(instance: Instance, store: &mut Store<World>, hook: Option<&Hook>) -> wasmtime::Result<Option<HookFunc<R>>>
where
    R: wasmtime::component::ComponentNamedList + wasmtime::component::Lift + Send + Sync + 'static,
{
    Ok(match hook {
        None => None,
        Some(Hook::Export(export)) => Some(HookFunc::Export(instance.get_typed_func(store, export.index)?)),
        Some(Hook::Request(request)) => Some(HookFunc::Request(*request)),
    })
}

impl HttpHandler {
    /// Lets the guest answer a request. `respond` gets the response as soon as its head is there. Returns what
    /// `respond` returned, once the guest's call has returned.
    async fn exchange<T: Send + 'static>(
        &self,
        site: Site<'_>,
        request: http::Request<Body>,
        respond: impl FnOnce(http::Response<Body>) -> T + Send + Sync + 'static,
    ) -> wasmtime::Result<Result<T, Fault>> {
        match self {
            HttpHandler::V02(func) => {
                let answer = Arc::new(Mutex::new(None));
                let slot = answer.clone();
                let params = site.accessor.with(|mut access| {
                    let mut store = access.as_context_mut();
                    let mut view = store.data_mut().http();
                    let request = view.new_incoming_request(http_02::Scheme::Http, request)?;
                    let out = view.new_response_outparam_from_callback(move |response| {
                        let made = response.map(respond);
                        *slot.lock().expect("no holder of this lock panics") = Some(made);
                    })?;
                    wasmtime::error::Ok((request, out))
                })?;
                site.run(func, params).await?;
                let answer = answer.lock().expect("no holder of this lock panics").take();
                Ok(match answer {
                    Some(Ok(made)) => Ok(made),
                    Some(Err(code)) => Err(Fault::Failed(format!("the handler answered with the error {code:?}"))),
                    None => Err(Fault::BadResponse("the handler returned without a response".to_owned())),
                })
            }
            HttpHandler::V03(func) => {
                let (request, sent) = site.accessor.with(|mut access| {
                    let mut store = access.as_context_mut();
                    let view = store.data_mut().http();
                    let (request, sent) = p3::Request::from_http(view.hooks, request);
                    // Boxed, because its opaque type appears to borrow the view.
                    let sent: BoxFuture<'static, Result<(), BodyError>> = Box::pin(sent);
                    wasmtime::error::Ok((view.table.push(request)?, sent))
                })?;
                let (answer,) = site.run(func, (request,)).await?;
                let response = match answer {
                    Ok(response) => response,
                    Err(code) => {
                        return Ok(Err(Fault::Failed(format!("the handler answered with the error {code:?}"))));
                    }
                };
                site.accessor.with(|mut access| {
                    let response = access.as_context_mut().data_mut().http().table.delete(response)?;
                    let response = response.into_http(access.as_context_mut(), sent);
                    Ok(match response {
                        Ok(response) => Ok(respond(response)),
                        Err(error) => Err(Fault::BadResponse(format!("its response is invalid: {error:#}"))),
                    })
                })
            }
        }
    }
}
