//! A compiled component.

use anyhow::Context as _;
use wasmtime::component::InstancePre;
use wasmtime::component::types::ComponentItem;

use super::code::CodeFile;
use super::engine::Engine;
use super::exports::{EntryNames, Exports};
use super::offered;
use super::refusal::Refusal;
use super::world::World;

/// Compiled code of one component, mapped into memory. Cheap to clone; functions may share one.
#[derive(Clone)]
pub struct Component {
    engine: Engine,
    compiled: wasmtime::component::Component,
}

impl Component {
    /// Maps compiled code.
    pub fn load(engine: &Engine, code: &CodeFile) -> anyhow::Result<Component> {
        let compiled = engine.map(code).map_err(anyhow::Error::from);
        let compiled = compiled.with_context(|| format!("map compiled code {}", code.path().display()))?;
        Ok(Component { engine: engine.clone(), compiled })
    }

    /// Finds the exports that `names` refer to, or says what does not fit.
    pub fn check(&self, names: &EntryNames) -> Result<Exports, Refusal> {
        self.link(names).map(|(_, exports)| exports)
    }

    /// Whether it exports something of this name.
    pub fn exports(&self, name: &str) -> bool {
        self.compiled.get_export(None, name).is_some()
    }

    /// The names of the functions that it exports, in their order.
    pub fn export_names(&self) -> Vec<String> {
        let ty = self.compiled.component_type();
        let functions =
            ty.exports(self.compiled.engine()).filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)));
        functions.map(|(name, _)| name.to_owned()).collect()
    }

    /// Checks the component's imports against what this host offers, and its exports against `names`.
    pub(super) fn link(&self, names: &EntryNames) -> Result<(InstancePre<World>, Exports), Refusal> {
        let exports = Exports::find(&self.compiled, names)?;
        let pre = self
            .engine
            .linker_of(&self.compiled)
            .instantiate_pre(&self.compiled)
            .map_err(|error| Refusal::MissingImport(offered::missing(&self.compiled, &format!("{error:#}"))))?;
        Ok((pre, exports))
    }

    pub(super) fn maps_per_instance(&self) -> u64 {
        self.engine.maps_per_instance(&self.compiled)
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }
}
