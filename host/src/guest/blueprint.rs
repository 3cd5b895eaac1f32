//! What all instances of a function share: the linked component, its exports and its sandbox.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use wasmtime::Store;
use wasmtime::component::InstancePre;
use wasmtime_wasi::WasiCtxBuilder;

use super::component::Component;
use super::epoch::Ticker;
use super::exports::{EntryNames, Exports};
use super::host_pattern::HostPattern;
use super::limits::{HANDLES_MAX, HOSTCALL_BYTES_MAX, Limits, RANDOM_BYTES_MAX};
use super::mailbox::Mailbox;
use super::outbound::Outbound;
use super::output::Output;
use super::reach::Reach;
use super::refusal::Refusal;
use super::world::{Date, World};
use crate::ids::InstanceId;
use crate::log::{LogWriter, Stream};
use crate::memory::Governor;

/// Everything that the instances of one function share.
pub struct Blueprint {
    /// The exports that the function uses.
    pub exports: Exports,
    /// Kernel maps that each instance needs.
    pub maps_per_instance: u64,
    pub(super) pre: InstancePre<World>,
    pub(super) ticker: Arc<Ticker>,
    memory_bytes_total: Arc<AtomicU64>,
    governor: Governor,
    memory_mb: u32,
    environment: Vec<(String, String)>,
    reach: Arc<Reach>,
    log: LogWriter,
}

impl Blueprint {
    /// Binds `component` to a function's configuration, or says what does not fit.
    pub fn new(component: &Component, names: &EntryNames, sandbox: Sandbox<'_>) -> Result<Blueprint, Refusal> {
        let (pre, exports) = component.link(names)?;
        let environment = sandbox.environment.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(Blueprint {
            exports,
            maps_per_instance: component.maps_per_instance(),
            pre,
            ticker: component.engine().ticker(),
            memory_bytes_total: component.engine().memory_bytes_total(),
            governor: component.engine().governor().clone(),
            memory_mb: sandbox.memory_mb,
            environment,
            reach: Arc::new(Reach::new(&sandbox.outbound_hosts, component.engine().network().clone())),
            log: sandbox.log,
        })
    }

    /// A fresh store with every limit set.
    pub(super) fn store(&self, instance: InstanceId, mailbox: &Arc<Mailbox>) -> Store<World> {
        let output = |stream| Output::new(stream, self.log.clone(), instance, mailbox.clone());
        let [stdout, stderr] = [output(Stream::Stdout), output(Stream::Stderr)];
        let wasi = WasiCtxBuilder::new()
            .envs(&self.environment)
            .stdout(stdout.clone())
            .stderr(stderr.clone())
            .max_random_size(RANDOM_BYTES_MAX)
            .wall_clock(Date)
            .allow_tcp(false)
            .allow_udp(false)
            .build();
        let outbound = Outbound::new(self.reach.clone(), self.log.clone(), instance, mailbox.clone());
        let memory_bytes_max = (self.memory_mb as usize) << 20;
        let (gauge, total) = (mailbox.gauge.clone(), self.memory_bytes_total.clone());
        let limits = Limits::new(memory_bytes_max, gauge, total, self.governor.clone());
        let mut store = Store::new(self.pre.engine(), World::new(wasi, outbound, [stdout, stderr], limits));
        store.limiter_async(|world| &mut world.limits);
        store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
        store.set_max_component_handles(HANDLES_MAX);
        store
    }
}

/// What a function's instances may use.
pub struct Sandbox<'a> {
    /// Linear memory, in MB.
    pub memory_mb: u32,
    /// The guest's whole environment.
    pub environment: &'a BTreeMap<String, String>,
    /// The hosts that it may send HTTP requests to.
    pub outbound_hosts: Vec<HostPattern>,
    /// The log for its output.
    pub log: LogWriter,
}
