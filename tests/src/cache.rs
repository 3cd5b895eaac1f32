//! What is fetched or built once and kept outside the checkout: toolchains, guests of their languages, components of
//! registries, compiled code. An entry is a folder named after a hash of what it is made from, so it never changes.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::repository;

/// The last file of an entry: without it, whoever made the entry did not finish. Its time is that of the last use.
const COMPLETE: &str = "complete";

/// How long an entry is kept that nobody uses: it was made from sources or versions of the past.
const UNUSED_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// The cache's folder: `DORMOUSE_CACHE`, or `.cache/dormouse` in the user's home.
///
/// # Panics
///
/// If neither it nor `HOME` is set.
pub fn folder() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("set HOME or DORMOUSE_CACHE")).join(".cache/dormouse");
    std::env::var_os("DORMOUSE_CACHE").map_or_else(home, PathBuf::from)
}

/// A hash of parts, such as texts, and of the files below paths in the repository.
pub fn hash<T: AsRef<[u8]>>(parts: &[T], paths: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.iter().for_each(|part| part.as_ref().hash(&mut hasher));
    for path in paths {
        hash_files(&repository().join(path), &mut hasher);
    }
    hasher.finish()
}

/// The folder of the entry `name` with this hash. If it is not there, `make` fills it; other processes wait for that.
///
/// # Panics
///
/// If the cache cannot be written.
pub fn entry(name: &str, hash: u64, make: impl FnOnce(&Path)) -> PathBuf {
    let folder = folder().join(format!("{name}-{hash:016x}"));
    let complete = folder.join(COMPLETE);
    let parent = folder.parent().expect("the cache's folder");
    fs::create_dir_all(parent).expect("a folder for the cache");
    // Python's programs name the folder they were installed in, so an entry is made in its place and not renamed.
    let lock = File::create(folder.with_extension("lock")).expect("a lock file");
    lock.lock().expect("a lock");
    if !complete.is_file() {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder for the entry");
        make(&folder);
        remove_unused(parent);
    }
    File::create(&complete).expect("a file");
    folder
}

fn remove_unused(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let used = fs::metadata(entry.path().join(COMPLETE)).and_then(|complete| complete.modified());
        let unused_for = used.ok().and_then(|used| SystemTime::now().duration_since(used).ok());
        if unused_for.is_some_and(|unused_for| unused_for > UNUSED_MAX) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn hash_files(path: &Path, hasher: &mut DefaultHasher) {
    if !path.is_dir() {
        return fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display())).hash(hasher);
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(path).expect("a folder").flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for entry in entries {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // What building leaves beside sources.
        if !["__pycache__", "node_modules", "target", "build"].contains(&name.as_str()) {
            name.hash(hasher);
            hash_files(&entry, hasher);
        }
    }
}
