//! Components and their compiled code, as files named by the SHA-256 of the component.
//!
//! Files are written beside, synced and renamed, so that whatever has its final name is whole. Compiled code lies in a
//! folder named after everything it depends on; after an update of the engine it is made again when it is needed. Beside
//! each `.code` lies its SHA-256, as `sha256sum` writes it: code is mapped only if it still is what was written.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::guest::{Capacity, CodeFile, CompiledCode, Component, Engine, Refusal};

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
            Ok(write_code(compiled, &code)?)
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
            Ok(write_code(compiled, &self.engine.compile(&bytes)?)?)
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
        let component = match self.map(&path) {
            Ok(component) => component,
            Err(error) => {
                // Compiled code can always be made again, so damage to it is no reason to fail.
                tracing::warn!(path = %path.display(), "compiled code does not load, compiling again: {error:#}");
                compile(&path)?;
                self.map(&path)?
            }
        };
        *loaded = Some(component.clone());
        Ok(component)
    }

    fn map(&self, path: &Path) -> anyhow::Result<Component> {
        Component::load(&self.engine, &checked_code(path)?)
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
        let compiled = self.compiled.join(format!("{sha256}.code"));
        remove(&compiled);
        remove(&checksum_of(&compiled));
    }

    /// Removes what a killed host left behind: files of components that no function uses.
    pub(super) fn keep_only(&self, used: &HashSet<String>) {
        for folder in [&self.components, &self.compiled] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                // `<sha256>.wasm`, `<sha256>.code`, `<sha256>.code.sha256`.
                let (sha256, _) = name.split_once('.').unwrap_or((name, ""));
                if !used.contains(sha256) {
                    remove(&path);
                }
            }
        }
    }
}

/// Where the SHA-256 of a file of compiled code lies.
fn checksum_of(compiled: &Path) -> PathBuf {
    compiled.with_extension("code.sha256")
}

/// Writes compiled code and its SHA-256. A host that is killed between the two finds code that does not match, and
/// compiles again.
fn write_code(compiled: &Path, code: &CompiledCode) -> anyhow::Result<()> {
    write_whole(compiled, code.bytes())?;
    let name = compiled.file_name().context("compiled code has a name")?.to_string_lossy();
    let line = format!("{}  {name}\n", hex::encode(Sha256::digest(code.bytes())));
    write_whole(&checksum_of(compiled), line.as_bytes())
}

/// Compiled code whose bytes are those that were written. Code without a checksum, as older hosts left it, is refused too:
/// it is compiled again rather than trusted.
#[expect(unsafe_code, reason = "only this file knows where compiled code comes from")]
fn checked_code(compiled: &Path) -> anyhow::Result<CodeFile> {
    let checksum = checksum_of(compiled);
    let line = fs::read_to_string(&checksum).with_context(|| format!("read {}", checksum.display()))?;
    let mut file = File::open(compiled).with_context(|| format!("open {}", compiled.display()))?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher).with_context(|| format!("read {}", compiled.display()))?;
    let wanted = line.split_whitespace().next().unwrap_or_default();
    anyhow::ensure!(hex::encode(hasher.finalize()) == wanted, "its SHA-256 is not the one in {}", checksum.display());
    // SAFETY: `write_code` wrote the file from `CompiledCode`, into a folder of the state directory that no request can
    // name, and its bytes are unchanged. Files there are only replaced by renaming, or removed. False as soon as somebody
    // else may write to the state directory.
    Ok(unsafe { CodeFile::new(compiled.to_owned()) })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest component: it has nothing in it.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    /// A store with the empty component, the component's name, and the file of its compiled code.
    fn stored(folder: &Path) -> (String, PathBuf) {
        let artifacts = Artifacts::open(folder, Engine::new().unwrap()).unwrap();
        let stored = artifacts.add(EMPTY).unwrap();
        (stored.sha256.clone(), artifacts.compiled.join(format!("{}.code", stored.sha256)))
    }

    /// Loads the component as a host that starts anew.
    fn load(folder: &Path, sha256: &str) {
        Artifacts::open(folder, Engine::new().unwrap()).unwrap().load(sha256).map(drop).unwrap();
    }

    #[test]
    fn code_with_a_flipped_byte_is_compiled_again() {
        let folder = tempfile::tempdir().unwrap();
        let (sha256, compiled) = stored(folder.path());
        let code = fs::read(&compiled).unwrap();
        for at in [0, code.len() / 2, code.len() - 1] {
            let mut damaged = code.clone();
            damaged[at] ^= 1;
            fs::write(&compiled, &damaged).unwrap();
            assert!(checked_code(&compiled).is_err(), "byte {at}");
            load(folder.path(), &sha256);
            assert!(fs::read(&compiled).unwrap() != damaged && checked_code(&compiled).is_ok(), "byte {at}");
        }
    }

    #[test]
    fn code_that_is_cut_off_is_compiled_again() {
        let folder = tempfile::tempdir().unwrap();
        let (sha256, compiled) = stored(folder.path());
        let code = fs::read(&compiled).unwrap();
        fs::write(&compiled, &code[..code.len() / 2]).unwrap();
        load(folder.path(), &sha256);
        assert!(checked_code(&compiled).is_ok());
    }

    #[test]
    fn code_of_a_host_that_wrote_no_checksums_is_compiled_again() {
        let folder = tempfile::tempdir().unwrap();
        let (sha256, compiled) = stored(folder.path());
        fs::remove_file(checksum_of(&compiled)).unwrap();
        fs::write(&compiled, "not even code").unwrap();
        load(folder.path(), &sha256);
        assert!(checked_code(&compiled).is_ok());
    }

    #[test]
    fn undamaged_code_is_not_compiled_again() {
        let folder = tempfile::tempdir().unwrap();
        let (sha256, compiled) = stored(folder.path());
        // It could not be compiled any more.
        fs::remove_file(folder.path().join(format!("components/{sha256}.wasm"))).unwrap();
        load(folder.path(), &sha256);
        assert!(checked_code(&compiled).is_ok());
    }

    #[test]
    fn all_files_of_a_component_stay_or_go_together() {
        let folder = tempfile::tempdir().unwrap();
        let (sha256, compiled) = stored(folder.path());
        let artifacts = Artifacts::open(folder.path(), Engine::new().unwrap()).unwrap();
        let files = [folder.path().join(format!("components/{sha256}.wasm")), checksum_of(&compiled), compiled];
        artifacts.keep_only(&HashSet::from([sha256.clone()]));
        assert!(files.iter().all(|file| file.exists()), "{files:?}");
        artifacts.keep_only(&HashSet::new());
        assert!(!files.iter().any(|file| file.exists()), "{files:?}");
        artifacts.add(EMPTY).unwrap();
        artifacts.forget(&sha256);
        assert!(!files.iter().any(|file| file.exists()), "{files:?}");
    }
}
