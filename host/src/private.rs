//! Files and folders that only their owner can read, whatever the umask: environment variables of functions are in them.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// What everybody but the owner may do.
const OTHERS: u32 = 0o077;

/// Makes a folder, with those above it that are missing, or closes the one that is there to others.
pub fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    close(path)
}

/// Makes a file, or closes the one that is there to others, and opens it to write at its end.
pub fn file(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).append(true).mode(0o600).open(path)?;
    close(path)?;
    Ok(file)
}

/// Takes all rights of others from a file or folder.
pub fn close(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & OTHERS == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS))
}

/// Whether others may do anything with a file or folder.
pub fn is_open(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & OTHERS != 0)
}
