//! Changes of a project's sources, for `up --watch`.
//!
//! Folders are watched one by one instead of recursively, so that build products (`target` and its like) take none of
//! the system's watches and wake nobody. A file counts as changed only if its contents did: what a build rewrites
//! without a difference does not start the next build.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What no author writes, wherever it is: folders of products, and locks that the first build makes. Hidden names hold
/// no sources either.
const NO_SOURCES: [&str; 5] = ["target", "node_modules", "__pycache__", "Cargo.lock", "package-lock.json"];
/// A save is many events; they are over when this long nothing happened.
const QUIET: Duration = Duration::from_millis(200);
/// A folder in which something always happens is looked at this often.
const BURST_MAX: Duration = Duration::from_secs(2);
/// Events that may wait; one that finds no room is not missed, because those before it already wake the watcher.
const EVENTS_MAX: usize = 4096;
/// Folders that are watched at most.
const FOLDERS_MAX: usize = 10_000;
/// A file larger than this is no source.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A watch over a project's folder.
pub(super) struct Sources {
    folder: PathBuf,
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
                // A full queue has enough to wake the watcher; see EVENTS_MAX.
                event.paths.into_iter().for_each(|path| drop(sender.try_send(path)));
            }
        })
        .context("watch for changes")?;
        let folder = folder.canonicalize().with_context(|| format!("watch {}", folder.display()))?;
        let (folders, digests) = (HashSet::new(), HashMap::new());
        let mut sources = Sources { folder, ours: Vec::new(), watcher, events, folders, digests };
        for file in sources.watch_new_folders()? {
            sources.is_different(&file);
        }
        Ok(sources)
    }

    /// From now on these files and folders are no sources.
    pub(super) fn leave_out(&mut self, ours: &[PathBuf]) {
        self.ours = ours.iter().map(|path| absolute(path)).collect();
    }

    /// Waits until sources changed and a moment has passed in which no other did; says which.
    pub(super) async fn changed(&mut self) -> anyhow::Result<Vec<PathBuf>> {
        loop {
            let mut changed = self.burst().await?;
            // Files in a new folder may have been there before it was watched, and had no event.
            changed.extend(self.watch_new_folders()?);
            changed.sort();
            changed.dedup();
            changed.retain(|path| self.is_source(path) && self.is_different(path));
            let changed = not_ignored_by_git(&self.folder, changed).await;
            if !changed.is_empty() {
                return Ok(changed);
            }
        }
    }

    /// The paths of all events until it is quiet.
    async fn burst(&mut self) -> anyhow::Result<Vec<PathBuf>> {
        let mut burst = vec![self.events.recv().await.context("the watch for changes ended")?];
        let end = Instant::now() + BURST_MAX;
        while let Ok(Some(path)) = tokio::time::timeout_at(end.min(Instant::now() + QUIET), self.events.recv()).await {
            burst.push(path);
        }
        Ok(burst)
    }

    /// Watches the folders that are not watched yet, and says which files are in them.
    fn watch_new_folders(&mut self) -> anyhow::Result<Vec<PathBuf>> {
        self.folders.retain(|folder| folder.is_dir());
        let mut files = Vec::new();
        let mut waiting = vec![self.folder.clone()];
        while let Some(folder) = waiting.pop() {
            let is_new = !self.folders.contains(&folder);
            if is_new && !self.watch_folder(&folder)? {
                continue;
            }
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries.filter_map(Result::ok) {
                let (path, kind) = (entry.path(), entry.file_type());
                if !self.is_source(&path) {
                    continue;
                }
                match kind {
                    Ok(kind) if kind.is_dir() => waiting.push(path),
                    Ok(_) if is_new => files.push(path),
                    Ok(_) | Err(_) => {}
                }
            }
        }
        Ok(files)
    }

    /// Watches one folder; `false` if it went away meanwhile.
    fn watch_folder(&mut self, folder: &Path) -> anyhow::Result<bool> {
        anyhow::ensure!(self.folders.len() < FOLDERS_MAX, "there are more than {FOLDERS_MAX} folders to watch");
        match self.watcher.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => Ok(self.folders.insert(folder.to_owned())),
            Err(_) if !folder.is_dir() => Ok(false),
            Err(error) => Err(error).with_context(|| format!("watch {}", folder.display())),
        }
    }

    fn is_source(&self, path: &Path) -> bool {
        let Ok(inside) = path.strip_prefix(&self.folder) else { return false };
        !self.ours.iter().any(|ours| path.starts_with(ours)) && inside.iter().all(may_have_sources)
    }

    /// Whether the file's contents are others than last time. A file that is gone differs from one that was there,
    /// but not one that came and went in between, as editors make them. A folder is never different.
    fn is_different(&mut self, path: &Path) -> bool {
        match digest(path) {
            Some(digest) => self.digests.insert(path.to_owned(), digest) != Some(digest),
            None => self.digests.remove(path).is_some(),
        }
    }
}

fn may_have_sources(part: &OsStr) -> bool {
    let part = part.to_string_lossy();
    let is_editors = part.ends_with('~') || part.ends_with(".swp");
    !NO_SOURCES.contains(&part.as_ref()) && !part.starts_with('.') && !is_editors
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

/// Leaves out what git ignores. Without git, or outside a repository, nothing is ignored.
async fn not_ignored_by_git(folder: &Path, paths: Vec<PathBuf>) -> Vec<PathBuf> {
    if paths.is_empty() {
        return paths;
    }
    match ignored_by_git(folder, &paths).await {
        Ok(ignored) => paths.into_iter().filter(|path| !ignored.contains(path)).collect(),
        Err(_) => paths,
    }
}

async fn ignored_by_git(folder: &Path, paths: &[PathBuf]) -> anyhow::Result<HashSet<PathBuf>> {
    use std::os::unix::ffi::OsStrExt;
    let mut git = tokio::process::Command::new("git");
    git.args(["check-ignore", "--stdin", "-z"]).current_dir(folder).kill_on_drop(true);
    let mut child = git.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let list: Vec<u8> = paths.iter().flat_map(|path| [path.as_os_str().as_bytes(), b"\0"].concat()).collect();
    let written = async move {
        // Git ends before it has read everything if this is no repository.
        let _ = stdin.write_all(&list).await;
    };
    let ((), output) = tokio::join!(written, child.wait_with_output());
    let parts = output?.stdout.split(|&byte| byte == 0).map(|part| PathBuf::from(OsStr::from_bytes(part))).collect();
    Ok(parts)
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
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let git = std::process::Command::new("git").args(["init", "-q"]).current_dir(&root).status();
        if !git.is_ok_and(|status| status.success()) {
            return; // Without git nothing is ignored.
        }
        fs::write(root.join(".gitignore"), "*.tmp\n").unwrap();
        let kept = not_ignored_by_git(&root, vec![root.join("a.tmp"), root.join("b.rs")]).await;
        assert_eq!(kept, [root.join("b.rs")]);
    }
}
