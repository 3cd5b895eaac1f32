//! A store's data: the WASI state of one guest, and its limits.

use std::time::{Duration, UNIX_EPOCH};

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{HostWallClock, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::limits::{Limits, RESOURCES_MAX};
use super::outbound::Outbound;
use super::output::Output;
use crate::clock;
use crate::ids::RequestId;

/// A store's data: WASI without files and sockets, outgoing HTTP, and the limits.
pub(super) struct World {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outbound: Outbound,
    table: ResourceTable,
    outputs: [Output; 2],
    pub(super) limits: Limits,
}

impl World {
    pub(super) fn new(wasi: WasiCtx, outbound: Outbound, outputs: [Output; 2], limits: Limits) -> World {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        World { wasi, http: WasiHttpCtx::new(), outbound, table, outputs, limits }
    }

    /// Ends the lines that a request began, once its call has returned.
    pub(super) fn end_lines_of(&self, request: &RequestId) {
        self.outputs.iter().for_each(|output| output.end_line_of(request));
    }
}

/// What guests get when they ask for the date. The engine's own clock panics before 1970.
pub(super) struct Date;

impl HostWallClock for Date {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        clock::date().duration_since(UNIX_EPOCH).unwrap_or_default()
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
