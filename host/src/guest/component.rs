//! A compiled component.

use super::engine::Engine;
use super::exports::{EntryNames, Exports};
use super::refusal::Refusal;
use super::world::World;

/// Compiled code of one component, mapped into memory. Cheap to clone; functions may share one.
#[derive(Clone)]
pub struct Component {
    engine: Engine,
    compiled: wasmtime::component::Component,
}

impl Component {
    pub(super) fn new(engine: Engine, compiled: wasmtime::component::Component) -> Component {
        Component { engine, compiled }
    }

    /// Which exports `names` stand for, or what does not fit.
    pub fn check(&self, names: &EntryNames) -> Result<Exports, Refusal> {
        self.link(names).map(|(_, exports)| exports)
    }

    pub(super) fn link(
        &self,
        names: &EntryNames,
    ) -> Result<(wasmtime::component::InstancePre<World>, Exports), Refusal> {
        self.engine.link(&self.compiled, names)
    }

    pub(super) fn maps_per_instance(&self) -> u64 {
        self.engine.maps_per_instance(&self.compiled)
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }
}
