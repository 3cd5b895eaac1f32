//! Components and their compiled code, as files named by the SHA-256 of the component.
//!
//! Files are written beside, synced and renamed, so that whatever has its final name is whole. Compiled code lies in a
//! folder named after everything it depends on; after an update of the engine it is made again when it is needed. The
//! catalog has the SHA-256 of each `.code`: it is mapped only if it still is what was written.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Context as _;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::compiler::{CompileError, Compiler};
use super::lane::Urgency;
use super::store::Store;
use crate::guest::{Capacity, CodeFile, Component, Engine};
use crate::shutdown::Tasks;
use crate::{clock, private};

/// The files, and the components that are mapped; cheap to clone.
#[derive(Clone)]
pub(super) struct Artifacts(Arc<Inner>);

struct Inner {
    engine: Engine,
    compiler: Compiler,
    store: Arc<Store>,
    tasks: Tasks,
    components: PathBuf,
    compiled: PathBuf,
    /// What compiled code depends on beside the component.
    compatibility: String,
    loaded: Mutex<HashMap<String, Slot>>,
}

/// A component, once it is mapped. Locked while somebody compiles or maps it, so that it is done once.
type Slot = Arc<tokio::sync::Mutex<Option<Component>>>;

/// A component that was stored. Its files stay for as long as this is held, even before a function names them.
pub(super) struct Stored {
    pub(super) sha256: String,
    pub(super) component: Component,
    pub(super) capacity: Capacity,
    pub(super) bytes: u64,
    _claim: Claim,
}

/// Somebody's interest in a component: its files stay meanwhile. An empty slot goes with the last claim.
struct Claim {
    artifacts: Artifacts,
    sha256: String,
    slot: Slot,
}

impl Artifacts {
    pub(super) fn open(
        state_dir: &Path,
        engine: Engine,
        compiler: Compiler,
        store: Arc<Store>,
        tasks: Tasks,
    ) -> anyhow::Result<Artifacts> {
        let components = state_dir.join("components");
        let compatibility = engine.compatibility();
        let compiled = state_dir.join("compiled").join(&compatibility);
        for folder in [&components, &compiled] {
            private::folder(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        Ok(Artifacts(Arc::new(Inner {
            engine,
            compiler,
            store,
            tasks,
            components,
            compiled,
            compatibility,
            loaded: Mutex::default(),
        })))
    }

    /// Stores a component and its compiled code. The same component is compiled once, however many ask for it; if the
    /// caller gives up, compiling stops.
    pub(super) async fn add(&self, bytes: Bytes) -> Result<Stored, CompileError> {
        let (read, length) = (bytes.clone(), bytes.len() as u64);
        let read = move || (hex::encode(Sha256::digest(&read)), Capacity::of(&read));
        let (sha256, capacity) = self.0.tasks.blocking(read).await?;
        let claim = self.claim(sha256.clone());
        let component = self.load_with(&claim, Some(bytes)).await?;
        Ok(Stored { sha256, component, capacity, bytes: length, _claim: claim })
    }

    /// Maps the compiled code of a stored component; compiles it again if this engine has not yet.
    pub(super) async fn load(&self, sha256: &str) -> Result<Component, CompileError> {
        self.load_with(&self.claim(sha256.to_owned()), None).await
    }

    /// Maps a component, and compiles it first if that must be: the one that was uploaded, or the one that is stored.
    async fn load_with(&self, claim: &Claim, uploaded: Option<Bytes>) -> Result<Component, CompileError> {
        let mut loaded = claim.slot.lock().await;
        if let Some(component) = &*loaded {
            return Ok(component.clone());
        }
        let component = match self.map_if_there(claim.sha256.clone()).await? {
            Some(component) => component,
            None => self.compile(claim, uploaded).await?,
        };
        *loaded = Some(component.clone());
        Ok(component)
    }

    async fn map_if_there(&self, sha256: String) -> Result<Option<Component>, CompileError> {
        let artifacts = self.clone();
        let map = move || match artifacts.code_of(&sha256).exists().then(|| artifacts.map(&sha256)) {
            None => None,
            Some(Ok(component)) => Some(component),
            Some(Err(error)) => {
                let path = artifacts.code_of(&sha256);
                // Compiled code can always be made again, so damage to it is no reason to fail.
                tracing::warn!(path = %path.display(), "compiled code does not load, compiling again: {error:#}");
                None
            }
        };
        Ok(self.0.tasks.blocking(map).await?)
    }

    async fn compile(&self, claim: &Claim, uploaded: Option<Bytes>) -> Result<Component, CompileError> {
        let is_new = uploaded.is_some();
        let urgency = if is_new { Urgency::Patient } else { Urgency::Urgent };
        let component = self.component_of(&claim.sha256);
        let bytes = match uploaded {
            Some(bytes) => bytes,
            None => {
                let (file, sha256) = (component.clone(), claim.sha256.clone());
                self.0.tasks.blocking(move || read_component(&file, &sha256)).await??
            }
        };
        let code = self.0.compiler.compile(bytes.clone(), urgency, &self.0.compiled).await?;
        let (artifacts, sha256) = (self.clone(), claim.sha256.clone());
        let store = move || {
            if is_new {
                write_whole(&component, &bytes)?;
            }
            artifacts.store_code(code, &sha256)?;
            artifacts.map(&sha256)
        };
        Ok(self.0.tasks.blocking(store).await??)
    }

    /// The file of a component.
    pub(super) fn component_of(&self, sha256: &str) -> PathBuf {
        self.0.components.join(format!("{sha256}.wasm"))
    }

    fn code_of(&self, sha256: &str) -> PathBuf {
        self.0.compiled.join(format!("{sha256}.code"))
    }

    /// Gives a component's compiled code its name, and notes its SHA-256. A host that is killed between the two finds code that
    /// does not match, or none, and compiles again.
    fn store_code(&self, code: NamedTempFile, sha256: &str) -> anyhow::Result<()> {
        self.0.store.put_code(sha256, &self.0.compatibility, &sha256_of(code.path())?)?;
        persist(code, &self.code_of(sha256))
    }

    fn map(&self, sha256: &str) -> anyhow::Result<Component> {
        Component::load(&self.0.engine, &self.checked_code(sha256)?)
    }

    /// Compiled code whose bytes are those that were written. Code that the catalog does not know is refused too: it is
    /// compiled again rather than trusted.
    #[expect(unsafe_code, reason = "only this file knows where compiled code comes from")]
    fn checked_code(&self, sha256: &str) -> anyhow::Result<CodeFile> {
        let known = self.0.store.code(sha256, &self.0.compatibility)?.context("the catalog has no checksum of it")?;
        let path = self.code_of(sha256);
        anyhow::ensure!(sha256_of(&path)? == known, "its SHA-256 is not the one in the catalog");
        // SAFETY: `store_code` put the file there, which our compiler wrote, in a folder of the state directory that no request
        // can name, and its bytes are unchanged. Files there are only replaced by renaming, or removed. False as soon as
        // somebody else may write to the state directory.
        Ok(unsafe { CodeFile::new(path) })
    }

    fn claim(&self, sha256: String) -> Claim {
        let slot = self.slots().entry(sha256.clone()).or_default().clone();
        Claim { artifacts: self.clone(), sha256, slot }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.0.loaded.lock().expect("no holder of this lock panics")
    }

    /// Removes the files of a component that no function uses any more, unless somebody is about to use it again. What
    /// is mapped stays usable until it is dropped.
    pub(super) fn forget(&self, sha256: &str) {
        let mut loaded = self.slots();
        if loaded.get(sha256).is_some_and(|slot| Arc::strong_count(slot) > 1) {
            return;
        }
        loaded.remove(sha256);
        remove(&self.component_of(sha256));
        remove(&self.code_of(sha256));
    }

    /// Moves all components aside, because the catalog names none: it may have been lost, so nothing is deleted.
    pub(super) fn set_aside(&self) -> anyhow::Result<()> {
        let count = fs::read_dir(&self.0.components)?.count();
        if count == 0 {
            return Ok(());
        }
        let date = humantime::format_rfc3339_seconds(clock::date()).to_string().replace(':', "-");
        let aside = self.0.components.with_file_name(format!("components-{date}"));
        fs::rename(&self.0.components, &aside).with_context(|| format!("move components to {}", aside.display()))?;
        private::folder(&self.0.components)?;
        tracing::warn!(
            "the catalog names no function, but components were stored ({count}): they are in {} now; if catalog.sqlite \
             was lost, stop the host, restore that file, and move the folder back",
            aside.display()
        );
        Ok(())
    }

    /// Removes what a killed host left behind: files of components that no function uses.
    pub(super) fn keep_only(&self, used: &HashSet<String>) {
        for (folder, kind) in [(&self.0.components, "wasm"), (&self.0.compiled, "code")] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if !name.split_once('.').is_some_and(|(sha256, ending)| ending == kind && used.contains(sha256)) {
                    remove(&path);
                }
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut slots = self.artifacts.slots();
        // The map has the other one. Nobody can take a further one meanwhile, since that takes the map's lock.
        let is_last = Arc::strong_count(&self.slot) == 2;
        if is_last && self.slot.try_lock().is_ok_and(|loaded| loaded.is_none()) {
            slots.remove(&self.sha256);
        }
    }
}

fn read_component(path: &Path, sha256: &str) -> anyhow::Result<Bytes> {
    let bytes = fs::read(path).with_context(|| format!("read component {}", path.display()))?;
    let whole = hex::encode(Sha256::digest(&bytes)) == sha256;
    anyhow::ensure!(whole, "component {} is damaged: its SHA-256 is another; deploy it again", path.display());
    Ok(bytes.into())
}

fn sha256_of(file: &Path) -> anyhow::Result<String> {
    let mut hasher = Sha256::new();
    let mut hash = || std::io::copy(&mut File::open(file)?, &mut hasher);
    hash().with_context(|| format!("read {}", file.display()))?;
    Ok(hex::encode(hasher.finalize()))
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
    let write = || -> anyhow::Result<()> {
        let mut file = NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        persist(file, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// Gives a file that is written its name, for good.
fn persist(file: NamedTempFile, path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(File::open(folder)?.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::Network;
    use crate::memory::Governor;

    /// The smallest component: it has nothing in it.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    /// One with an empty module.
    const OTHER: &[u8] = b"\0asm\x0d\0\x01\0\x01\x08\0asm\x01\0\0\0";

    /// A store with the empty component, the component's name, and the file of its compiled code.
    async fn stored(folder: &Path) -> (String, PathBuf) {
        let artifacts = open(folder);
        let stored = artifacts.add(EMPTY.into()).await.unwrap();
        (stored.sha256.clone(), artifacts.0.compiled.join(format!("{}.code", stored.sha256)))
    }

    fn open(folder: &Path) -> Artifacts {
        let tasks = Tasks::default();
        let engine = Engine::new(Governor::new(u64::MAX, || 0), Arc::new(Network::new(Vec::new(), 0))).unwrap();
        let store = Arc::new(Store::open(&folder.join("catalog.sqlite")).unwrap());
        Artifacts::open(folder, engine, Compiler::here(tasks.clone()), store, tasks).unwrap()
    }

    /// Whether a host would execute what lies there.
    fn is_trusted(folder: &Path, sha256: &str) -> bool {
        open(folder).checked_code(sha256).is_ok()
    }

    /// Loads the component as a host that starts anew.
    async fn load(folder: &Path, sha256: &str) {
        open(folder).load(sha256).await.map(drop).unwrap();
    }

    #[tokio::test]
    async fn code_with_a_flipped_byte_is_compiled_again() {
        let folder = tempfile::tempdir().unwrap();
        let (sha256, compiled) = stored(folder.path()).await;
        let code = fs::read(&compiled).unwrap();
        for at in [0, code.len() / 2, code.len() - 1] {
            let mut damaged = code.clone();
            damaged[at] ^= 1;
            fs::write(&compiled, &damaged).unwrap();
            assert!(!is_trusted(folder.path(), &sha256), "byte {at}");
            load(folder.path(), &sha256).await;
            assert!(fs::read(&compiled).unwrap() != damaged && is_trusted(folder.path(), &sha256), "byte {at}");
        }
    }

    #[tokio::test]
    async fn code_that_is_cut_off_is_compiled_again() {
        let folder = tempfile::tempdir().unwrap();
        let (sha256, compiled) = stored(folder.path()).await;
        let code = fs::read(&compiled).unwrap();
        fs::write(&compiled, &code[..code.len() / 2]).unwrap();
        load(folder.path(), &sha256).await;
        assert!(is_trusted(folder.path(), &sha256));
    }

    #[tokio::test]
    async fn code_that_the_catalog_does_not_know_is_compiled_again() {
        let folder = tempfile::tempdir().unwrap();
        let (sha256, compiled) = stored(folder.path()).await;
        // No revision names it.
        open(folder.path()).0.store.forget_unused_code().unwrap();
        fs::write(&compiled, "not even code").unwrap();
        load(folder.path(), &sha256).await;
        assert!(is_trusted(folder.path(), &sha256));
    }

    #[tokio::test]
    async fn the_code_of_another_component_is_not_taken_for_this_ones() {
        let folder = tempfile::tempdir().unwrap();
        let (sha256, compiled) = stored(folder.path()).await;
        let other = open(folder.path()).add(OTHER.into()).await.unwrap().sha256;
        fs::copy(&compiled, compiled.with_file_name(format!("{other}.code"))).unwrap();
        assert!(is_trusted(folder.path(), &sha256) && !is_trusted(folder.path(), &other));
        load(folder.path(), &other).await;
        assert!(is_trusted(folder.path(), &other));
    }

    #[tokio::test]
    async fn undamaged_code_is_not_compiled_again() {
        let folder = tempfile::tempdir().unwrap();
        let (sha256, _) = stored(folder.path()).await;
        // It could not be compiled any more.
        fs::remove_file(folder.path().join(format!("components/{sha256}.wasm"))).unwrap();
        load(folder.path(), &sha256).await;
        assert!(is_trusted(folder.path(), &sha256));
    }

    #[tokio::test]
    async fn what_an_empty_catalog_does_not_name_is_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        let (sha256, _) = stored(folder.path()).await;
        let artifacts = open(folder.path());
        artifacts.set_aside().unwrap();
        assert!(!artifacts.0.components.join(format!("{sha256}.wasm")).exists());
        let kept = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let kept: Vec<PathBuf> = kept.filter(|path| path.join(format!("{sha256}.wasm")).exists()).collect();
        assert_eq!(kept.len(), 1, "{kept:?}");
        artifacts.set_aside().unwrap();
        artifacts.add(EMPTY.into()).await.unwrap();
    }

    #[tokio::test]
    async fn all_files_of_a_component_stay_or_go_together() {
        let folder = tempfile::tempdir().unwrap();
        let (sha256, compiled) = stored(folder.path()).await;
        let artifacts = open(folder.path());
        let files = [folder.path().join(format!("components/{sha256}.wasm")), compiled];
        artifacts.keep_only(&HashSet::from([sha256.clone()]));
        assert!(files.iter().all(|file| file.exists()), "{files:?}");
        artifacts.keep_only(&HashSet::new());
        assert!(!files.iter().any(|file| file.exists()), "{files:?}");
        artifacts.add(EMPTY.into()).await.unwrap();
        artifacts.forget(&sha256);
        assert!(!files.iter().any(|file| file.exists()), "{files:?}");
    }
}
