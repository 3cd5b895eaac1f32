//! Machine code that [`Engine::compile`](super::Engine::compile) made, and files of it.
//!
//! Loaded machine code runs unchecked, so the engine takes no path and no bytes, only a [`CodeFile`]. Creating one is
//! `unsafe`: the code that keeps files on disk must vouch for them.

use std::path::{Path, PathBuf};

/// Machine code of one component. Only the engine creates it.
pub struct CompiledCode(Vec<u8>);

impl CompiledCode {
    pub(super) fn new(bytes: Vec<u8>) -> CompiledCode {
        CompiledCode(bytes)
    }

    /// The bytes to write to a file.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A file of compiled code that may be loaded.
pub struct CodeFile(PathBuf);

impl CodeFile {
    /// Vouches for the file at `path`.
    ///
    /// # Safety
    ///
    /// The file holds what [`CompiledCode::bytes`] returned, unchanged. Nobody changes or truncates it while a
    /// component that was loaded from it is in use; it may be replaced or removed, because it stays mapped.
    #[expect(unsafe_code, reason = "the contract is about a file, which no type can hold to it")]
    pub unsafe fn new(path: PathBuf) -> CodeFile {
        CodeFile(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}
