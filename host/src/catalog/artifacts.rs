//! Components and their compiled code, as files named by the SHA-256 of the component.
//!
//! Files are written beside, synced and renamed, so that whatever has its final name is whole. Compiled code lies in a
//! folder named after everything it depends on; after an update of the engine it is made again when it is needed.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::guest::{Capacity, Component, Engine, Refusal};

/// The files, and the components that are mapped.
pub(super) struct Artifacts {
    engine: Engine,
    components: PathBuf,
    compiled: PathBuf,
    loaded: Mutex<HashMap<String, Slot>>,
}

type Slot = Arc<Mutex<Option<Component>>>;

/// A component that was stored. Its files stay for as long as this is held, even before a function names them.
pub(super) struct Stored {
    pub(super) sha256: String,
    pub(super) component: Component,
    pub(super) capacity: Capacity,
    _slot: Slot,
}

/// Why a component could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// It is none, or does not fit this host.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The disk, or damage on it.
    #[error(transparent)]
    Storage(#[from] anyhow::Error),
}

impl Artifacts {
    pub(super) fn open(state_dir: &Path, engine: Engine) -> anyhow::Result<Artifacts> {
        let components = state_dir.join("components");
        let compiled = state_dir.join("compiled").join(engine.compatibility());
        for folder in [&components, &compiled] {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        Ok(Artifacts { engine, components, compiled, loaded: Mutex::default() })
    }

    /// Stores a component and its compiled code. Blocks for as long as compiling takes; the same component is compiled
    /// once, however many ask for it.
    pub(super) fn add(&self, bytes: &[u8]) -> Result<Stored, ArtifactError> {
        let sha256 = hex::encode(Sha256::digest(bytes));
        let slot = self.slot(&sha256);
        let loaded = self.load_with(&slot, &sha256, |compiled| {
            let code = self.engine.compile(bytes)?;
            write_whole(&self.components.join(format!("{sha256}.wasm")), bytes)?;
            write_whole(compiled, &code)?;
            Ok(())
        });
        match loaded {
            Ok(component) => Ok(Stored { sha256, component, capacity: Capacity::of(bytes), _slot: slot }),
            Err(error) => {
                drop(slot);
                self.release(&sha256);
                Err(error)
            }
        }
    }

    /// Maps the compiled code of a stored component; compiles it again if this engine has not yet.
    pub(super) fn load(&self, sha256: &str) -> Result<Component, ArtifactError> {
        self.load_with(&self.slot(sha256), sha256, |compiled| {
            let path = self.components.join(format!("{sha256}.wasm"));
            let bytes = fs::read(&path).with_context(|| format!("read component {}", path.display()))?;
            if hex::encode(Sha256::digest(&bytes)) != sha256 {
                let text = format!("component {} is damaged: its SHA-256 is another; deploy it again", path.display());
                return Err(anyhow::Error::msg(text).into());
            }
            write_whole(compiled, &self.engine.compile(&bytes)?)?;
            Ok(())
        })
    }

    fn load_with(
        &self,
        slot: &Slot,
        sha256: &str,
        compile: impl Fn(&Path) -> Result<(), ArtifactError>,
    ) -> Result<Component, ArtifactError> {
        let mut loaded = slot.lock().expect("no holder of this lock panics");
        if let Some(component) = &*loaded {
            return Ok(component.clone());
        }
        let path = self.compiled.join(format!("{sha256}.code"));
        if !path.exists() {
            compile(&path)?;
        }
        let component = match self.engine.load(&path) {
            Ok(component) => component,
            Err(error) => {
                // Compiled code can always be made again, so damage to it is no reason to fail.
                tracing::warn!(path = %path.display(), "compiled code does not load, compiling again: {error:#}");
                compile(&path)?;
                self.engine.load(&path)?
            }
        };
        *loaded = Some(component.clone());
        Ok(component)
    }

    fn slot(&self, sha256: &str) -> Slot {
        let mut slots = self.loaded.lock().expect("no holder of this lock panics");
        slots.entry(sha256.to_owned()).or_default().clone()
    }

    /// Lets go of a slot that nothing came into.
    fn release(&self, sha256: &str) {
        let mut slots = self.loaded.lock().expect("no holder of this lock panics");
        let empty = |slot: &Slot| slot.lock().expect("no holder of this lock panics").is_none();
        // Nobody else holds it, so its lock is free.
        if slots.get(sha256).is_some_and(|slot| Arc::strong_count(slot) == 1 && empty(slot)) {
            slots.remove(sha256);
        }
    }

    /// Removes the files of a component that no function uses any more, unless somebody is about to use it again. What
    /// is mapped stays usable until it is dropped.
    pub(super) fn forget(&self, sha256: &str) {
        let mut loaded = self.loaded.lock().expect("no holder of this lock panics");
        if loaded.get(sha256).is_some_and(|slot| Arc::strong_count(slot) > 1) {
            return;
        }
        loaded.remove(sha256);
        remove(&self.components.join(format!("{sha256}.wasm")));
        remove(&self.compiled.join(format!("{sha256}.code")));
    }

    /// Removes what a killed host left behind: files of components that no function uses.
    pub(super) fn keep_only(&self, used: &HashSet<String>) {
        for folder in [&self.components, &self.compiled] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if !path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| used.contains(stem)) {
                    remove(&path);
                }
            }
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), "cannot remove unused file: {error}");
    }
}

/// Writes a file so that it is there whole or not at all, whenever the host is killed.
fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("write {}", path.display()))
}
