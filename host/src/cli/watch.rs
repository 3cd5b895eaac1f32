//! Changes of a project's sources, for `up --watch`.
//!
//! What git ignores, hidden names and build products (`target` and its like) are no sources. Folders are watched one by
//! one instead of recursively, so that those take none of the system's watches and wake nobody. A file counts as changed
//! only if its contents did: what a build rewrites without a difference does not start the next build.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use ignore::overrides::{Override, OverrideBuilder};
use ignore::{Walk, WalkBuilder};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What no author writes, wherever it is: folders of products, locks that the first build makes, editors' backups. As
/// everywhere in the `ignore` crate's overrides, `!` leaves out.
const NO_SOURCES: [&str; 7] =
    ["!target", "!node_modules", "!__pycache__", "!Cargo.lock", "!package-lock.json", "!*~", "!*.swp"];
/// A save is many events; they are over when this long nothing happened.
const QUIET: Duration = Duration::from_millis(200);
/// A folder in which something always happens is looked at this often.
const BURST_MAX: Duration = Duration::from_secs(2);
/// Events that may wait. If there are more, some changed files are not named, but those before already wake the watcher.
const EVENTS_MAX: usize = 4096;
/// Folders that are watched at most.
const FOLDERS_MAX: usize = 10_000;
/// A file larger than this is no source.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A watch over a project's folder.
pub(super) struct Sources {
    folder: PathBuf,
    no_sources: Override,
    /// Components that the project builds, and the host's state: changed by us, not by the author.
    ours: Vec<PathBuf>,
    watcher: RecommendedWatcher,
    events: mpsc::Receiver<PathBuf>,
    folders: HashSet<PathBuf>,
    digests: HashMap<PathBuf, u64>,
}

impl Sources {
    /// Begins to watch `folder`.
    pub(super) fn watch(folder: &Path) -> anyhow::Result<Sources> {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let Ok(event) = event else { return };
            if !event.kind.is_access() {
                event.paths.into_iter().for_each(|path| drop(sender.try_send(path)));
            }
        })
        .context("watch for changes")?;
        let folder = folder.canonicalize().with_context(|| format!("watch {}", folder.display()))?;
        let mut overrides = OverrideBuilder::new(&folder);
        NO_SOURCES.iter().try_for_each(|glob| overrides.add(glob).map(drop))?;
        let (folders, digests) = (HashSet::new(), HashMap::new());
        let no_sources = overrides.build()?;
        let mut sources = Sources { folder, no_sources, ours: Vec::new(), watcher, events, folders, digests };
        sources.scan(&HashSet::new())?;
        Ok(sources)
    }

    /// From now on these files and folders are no sources.
    pub(super) fn leave_out(&mut self, ours: &[PathBuf]) {
        self.ours = ours.iter().map(|path| absolute(path)).collect();
    }

    /// Waits until sources changed and a moment has passed in which no other did; says which.
    pub(super) async fn changed(&mut self) -> anyhow::Result<Vec<PathBuf>> {
        loop {
            let touched = self.burst().await?;
            let changed = self.scan(&touched)?;
            if !changed.is_empty() {
                return Ok(changed);
            }
        }
    }

    /// The paths of all events until it is quiet.
    async fn burst(&mut self) -> anyhow::Result<HashSet<PathBuf>> {
        let mut burst = HashSet::from([self.events.recv().await.context("the watch for changes ended")?]);
        let end = Instant::now() + BURST_MAX;
        while let Ok(Some(path)) = tokio::time::timeout_at(end.min(Instant::now() + QUIET), self.events.recv()).await {
            burst.insert(path);
        }
        Ok(burst)
    }

    /// Watches folders that are new, and says which files are new, gone, or touched and different.
    fn scan(&mut self, touched: &HashSet<PathBuf>) -> anyhow::Result<Vec<PathBuf>> {
        // A folder that was touched may have been replaced, and the new one is not watched.
        self.folders.retain(|folder| !touched.contains(folder) && folder.is_dir());
        let (mut before, mut changed) = (std::mem::take(&mut self.digests), Vec::new());
        for entry in self.walk().filter_map(Result::ok) {
            let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
            let path = entry.into_path();
            if is_folder {
                self.watch_folder(path)?;
                continue;
            }
            let known = before.remove(&path);
            let digest = if touched.contains(&path) { None } else { known }.or_else(|| digest(&path));
            if digest != known {
                changed.push(path.clone());
            }
            self.digests.extend(digest.map(|digest| (path, digest)));
        }
        // Others are still there, and only left out from now on.
        changed.extend(before.into_keys().filter(|path| !path.exists()));
        changed.sort();
        Ok(changed)
    }

    /// All folders, each before what is in it, and files that may be sources.
    fn walk(&self) -> Walk {
        let ours = self.ours.clone();
        let mut walk = WalkBuilder::new(&self.folder);
        // A project has its `.gitignore` from the first minute, and its repository later.
        walk.overrides(self.no_sources.clone()).require_git(false);
        walk.filter_entry(move |entry| !ours.iter().any(|ours| entry.path() == ours)).build()
    }

    /// Watches a folder unless it is watched already, or went away meanwhile.
    fn watch_folder(&mut self, folder: PathBuf) -> anyhow::Result<()> {
        if self.folders.contains(&folder) {
            return Ok(());
        }
        anyhow::ensure!(self.folders.len() < FOLDERS_MAX, "there are more than {FOLDERS_MAX} folders to watch");
        match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
            Ok(()) => drop(self.folders.insert(folder)),
            Err(_) if !folder.is_dir() => {}
            Err(error) => return Err(error).with_context(|| format!("watch {}", folder.display())),
        }
        Ok(())
    }
}

fn digest(path: &Path) -> Option<u64> {
    let metadata = std::fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    std::fs::read(path).ok()?.hash(&mut hasher);
    Some(hasher.finish())
}

/// The path as events spell it, even if it does not exist yet.
fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A project that is watched.
    async fn watched() -> (tempfile::TempDir, Sources) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("src")).unwrap();
        fs::create_dir(folder.path().join("target")).unwrap();
        fs::write(folder.path().join("src/lib.rs"), "one").unwrap();
        let mut sources = Sources::watch(folder.path()).unwrap();
        sources.leave_out(&[folder.path().join("built.wasm")]);
        (folder, sources)
    }

    #[tokio::test]
    async fn only_changed_sources_are_told() {
        let (folder, mut sources) = watched().await;
        let root = folder.path().canonicalize().unwrap();
        for path in ["target/x", "Cargo.lock", "built.wasm", ".hidden", "src/lib.rs~"] {
            fs::write(root.join(path), "x").unwrap();
        }
        fs::write(root.join("src/lib.rs"), "two").unwrap();
        assert_eq!(sources.changed().await.unwrap(), [root.join("src/lib.rs")]);
        // The same contents again are no change; the next file is.
        fs::write(root.join("src/lib.rs"), "two").unwrap();
        fs::write(root.join("src/new.rs"), "new").unwrap();
        assert_eq!(sources.changed().await.unwrap(), [root.join("src/new.rs")]);
    }

    #[tokio::test]
    async fn new_folders_are_watched_and_removed_files_are_told() {
        let (folder, mut sources) = watched().await;
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir(root.join("src/inner")).unwrap();
        fs::write(root.join("src/inner/early.rs"), "early").unwrap();
        assert_eq!(sources.changed().await.unwrap(), [root.join("src/inner/early.rs")]);
        fs::write(root.join("src/inner/more.rs"), "more").unwrap();
        assert_eq!(sources.changed().await.unwrap(), [root.join("src/inner/more.rs")]);
        fs::remove_file(root.join("src/inner/more.rs")).unwrap();
        assert_eq!(sources.changed().await.unwrap(), [root.join("src/inner/more.rs")]);
    }

    #[tokio::test]
    async fn what_git_ignores_is_no_source() {
        for is_repository in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().canonicalize().unwrap();
            if is_repository {
                fs::create_dir(root.join(".git")).unwrap();
            }
            fs::write(root.join(".gitignore"), "*.tmp\n/made/\n").unwrap();
            fs::create_dir(root.join("made")).unwrap();
            let mut sources = Sources::watch(&root).unwrap();
            for path in ["a.tmp", "made/a.rs", "b.rs"] {
                fs::write(root.join(path), "x").unwrap();
            }
            assert_eq!(sources.changed().await.unwrap(), [root.join("b.rs")], "repository: {is_repository}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_left_out_later_is_not_told() {
        let (folder, mut sources) = watched().await;
        let root = folder.path().canonicalize().unwrap();
        sources.leave_out(&[root.join("src/lib.rs")]);
        fs::write(root.join("src/lib.rs"), "two").unwrap();
        fs::write(root.join("src/new.rs"), "new").unwrap();
        assert_eq!(sources.changed().await.unwrap(), [root.join("src/new.rs")]);
    }

    #[tokio::test]
    async fn a_folder_that_was_replaced_is_watched_again() {
        let (folder, mut sources) = watched().await;
        let root = folder.path().canonicalize().unwrap();
        fs::remove_dir_all(root.join("src")).unwrap();
        fs::create_dir(root.join("src")).unwrap();
        fs::write(root.join("src/lib.rs"), "two").unwrap();
        assert_eq!(sources.changed().await.unwrap(), [root.join("src/lib.rs")]);
        fs::write(root.join("src/lib.rs"), "three").unwrap();
        assert_eq!(sources.changed().await.unwrap(), [root.join("src/lib.rs")]);
    }
}
