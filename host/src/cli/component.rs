//! The file that is deployed: a component, or a core module that says which world it is for and so can become one.

use std::path::Path;

use anyhow::Context;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

/// What core modules begin with: the magic number, and version 1. Components have another version.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// Reads the file of a component.
pub(super) async fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let file = tokio::fs::read(path).await.with_context(|| {
        let hint = if path.exists() { "" } else { " (`dormouse build` makes it)" };
        format!("read component {}{hint}", path.display())
    })?;
    from_file(file).with_context(|| format!("make a component of the core module {}", path.display()))
}

/// The component that a file holds. Linkers that know nothing of components, such as those for C, write core modules;
/// these are turned into components here, with the engine's adapter from WASI preview 1 to 0.2.
pub fn from_file(file: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    if !file.starts_with(CORE_MODULE) || !names_its_world(&file) {
        return Ok(file); // Whatever else it is, the host says what is wrong with it.
    }
    let (name, adapter) = (WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER);
    ComponentEncoder::default().module(&file)?.adapter(name, adapter)?.validate(true).encode()
}

/// Whether a core module has the section that says what it exports and imports as a component.
fn names_its_world(module: &[u8]) -> bool {
    let of_world =
        |payload| matches!(payload, Payload::CustomSection(section) if section.name().starts_with("component-type"));
    Parser::new(0).parse_all(module).map_while(Result::ok).any(of_world)
}
