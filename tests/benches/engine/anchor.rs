//! The bare engine doing the same: wasmtime and WASI with the host's settings, and nothing of the host.

use std::time::Duration;

use wasmtime::component::{Component, ComponentType, InstancePre, Linker, Lower, ResourceTable, TypedFunc};
use wasmtime::{Config, Engine, Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::{now_or_never, per_call};

/// A component on the bare engine.
pub(super) struct Anchor {
    engine: Engine,
    linker: Linker<Data>,
    pre: InstancePre<Data>,
    compiled: tempfile::NamedTempFile,
}

struct Data {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Data {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// The record `context`; the engine needs a type of its own here.
#[derive(Clone, ComponentType, Lower)]
#[component(record)]
struct CallContext {
    #[component(name = "request-id")]
    request_id: std::sync::Arc<str>,
    function: std::sync::Arc<str>,
    version: std::sync::Arc<str>,
    #[component(name = "instance-id")]
    instance_id: std::sync::Arc<str>,
    #[component(name = "memory-mb")]
    memory_mb: u32,
    #[component(name = "deadline-ms")]
    deadline_ms: u64,
    attempt: u32,
    traceparent: Option<String>,
}

/// An instance that has been called before.
pub(super) struct Warm {
    store: Store<Data>,
    handler: Handler,
}

impl Warm {
    pub(super) fn calls(&mut self, count: u32) -> Duration {
        per_call(count, || call(&mut self.store, self.handler))
    }
}

type Handler = TypedFunc<(CallContext, Vec<u8>), (Result<Vec<u8>, String>,)>;

impl Anchor {
    pub(super) fn new(component: &[u8]) -> Anchor {
        let mut config = Config::new();
        config.epoch_interruption(true).async_stack_zeroing(true).async_stack_size(1 << 20);
        let engine = Engine::new(&config).expect("an engine");
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).expect("WASI 0.2");
        wasmtime_wasi::p3::add_to_linker(&mut linker).expect("WASI 0.3");
        linker.instance("dormouse:function/types@0.1.0").expect("a fresh name");
        let compiled = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(compiled.path(), engine.precompile_component(component).expect("it compiles")).expect("written");
        let pre = linker.instantiate_pre(&load(&engine, compiled.path())).expect("it links");
        Anchor { engine, linker, pre, compiled }
    }

    /// A store that is otherwise idle, to call into.
    pub(super) fn warm(&self) -> Warm {
        let (store, handler) = self.instance(&self.pre);
        Warm { store, handler }
    }

    /// A fresh store, one call, drop.
    pub(super) fn cold_starts(&self, count: u32) -> Duration {
        per_call(count, || self.first_call(&self.pre))
    }

    /// The same, from compiled code on disk.
    pub(super) fn cold_starts_from_disk(&self, count: u32) -> Duration {
        per_call(count, || {
            let component = load(&self.engine, self.compiled.path());
            self.first_call(&self.linker.instantiate_pre(&component).expect("it links"));
        })
    }

    fn first_call(&self, pre: &InstancePre<Data>) {
        let (mut store, handler) = self.instance(pre);
        call(&mut store, handler);
    }

    fn instance(&self, pre: &InstancePre<Data>) -> (Store<Data>, Handler) {
        let data = Data { wasi: WasiCtx::builder().build(), table: ResourceTable::new() };
        let mut store = Store::new(&self.engine, data);
        store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Yield(1)));
        store.set_epoch_deadline(1);
        let instance = now_or_never(pre.instantiate_async(&mut store)).expect("it starts");
        let handler = instance.get_typed_func(&mut store, "handler").expect("a handler");
        (store, handler)
    }
}

fn call(store: &mut Store<Data>, handler: Handler) {
    let ours = super::context();
    let context = CallContext {
        request_id: ours.request_id,
        function: ours.function,
        version: ours.version,
        instance_id: ours.instance_id,
        memory_mb: ours.memory_mb,
        deadline_ms: ours.deadline_ms,
        attempt: ours.attempt,
        traceparent: ours.traceparent.map(|text| text.to_string()),
    };
    let params = (context, b"you".to_vec());
    let called = store.run_concurrent(async |accessor| handler.call_concurrent(accessor, params).await);
    let (reply,) = now_or_never(called).expect("it runs").expect("it returns");
    reply.expect("a reply");
}

#[expect(unsafe_code, reason = "the engine offers no safe way to map compiled code")]
fn load(engine: &Engine, path: &std::path::Path) -> Component {
    // SAFETY: The file holds what this engine's `precompile_component` returned a moment ago, in a private folder.
    unsafe { Component::deserialize_file(engine, path) }.expect("it loads")
}
