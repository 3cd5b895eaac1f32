//! Whether the state directory can be used.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::Finding;
use crate::private;

const STATE: &str = "state directory";
/// The file that a running host holds locked.
const LOCK_FILE: &str = "lock";

pub(super) fn check(state_dir: &Path) -> Finding {
    let shown = state_dir.display();
    let exists = state_dir.is_dir();
    if !exists && state_dir.exists() {
        return Finding::fail(STATE, format!("{shown} is not a folder")).remedy("choose another with `--state-dir`");
    }
    // What does not exist yet is made in the nearest folder above it.
    let absolute = std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.to_owned());
    let Some(place) = absolute.ancestors().find(|folder| folder.is_dir()) else {
        return Finding::fail(STATE, format!("there is no folder above {shown}"));
    };
    if let Err(error) = tempfile::tempfile_in(place) {
        return Finding::fail(STATE, format!("{} cannot be written: {error}", place.display()))
            .remedy("change its owner or mode, or choose another with `--state-dir`");
    }
    if !exists {
        return Finding::ok(STATE, format!("{shown} does not exist yet and can be made"));
    }
    if is_locked(&state_dir.join(LOCK_FILE)) {
        return Finding::ok(STATE, format!("{shown} is in use by a running host"))
            .remedy("a second host needs another `--state-dir`");
    }
    if private::is_open(state_dir).unwrap_or(false) {
        let text = format!("{shown} can be entered by other users; secrets of functions are in it");
        return Finding::warn(STATE, text).remedy(format!("chmod 700 {shown}"));
    }
    Finding::ok(STATE, format!("{shown} exists, can be written, and is not in use"))
}

/// Whether another process holds the lock. It is not kept if we get it.
fn is_locked(lock: &Path) -> bool {
    File::open(lock).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::Level;
    use super::*;

    #[test]
    fn the_state_directory_is_judged() {
        let folder = tempfile::tempdir().unwrap();
        private::close(folder.path()).unwrap();
        assert!(check(&folder.path().join("new/deep")).text.contains("does not exist yet"));
        assert!(check(folder.path()).text.contains("not in use"));
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        assert!(check(folder.path()).text.contains("other users"));
        private::close(folder.path()).unwrap();
        let lock = File::create(folder.path().join(LOCK_FILE)).unwrap();
        lock.try_lock().unwrap();
        assert!(check(folder.path()).text.contains("in use by a running host"));
        assert_eq!(check(&folder.path().join(LOCK_FILE)).level, Level::Fail);
    }
}
