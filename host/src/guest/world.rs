//! A store's data: the WASI state of one guest, and its limits.

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::limits::{Limits, RESOURCES_MAX};
use super::outbound::Outbound;

/// A store's data: WASI without files and sockets, outgoing HTTP, and the limits.
pub(super) struct World {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outbound: Outbound,
    table: ResourceTable,
    pub(super) limits: Limits,
}

impl World {
    pub(super) fn new(wasi: WasiCtx, outbound: Outbound, limits: Limits) -> World {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        World { wasi, http: WasiHttpCtx::new(), outbound, table, limits }
    }
}

impl WasiView for World {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for World {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outbound }
    }
}
