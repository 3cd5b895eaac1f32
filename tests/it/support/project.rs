//! The examples as a project of a test's own.

use std::path::Path;

/// Writes the examples' manifest into `folder`, with paths and build commands that hold there too.
pub(crate) fn write_examples(folder: &Path, change: impl FnOnce(String) -> String) {
    write_example("examples/dormouse.toml", folder, change);
}

/// The same with another manifest of the repository's.
pub(crate) fn write_example(manifest: &str, folder: &Path, change: impl FnOnce(String) -> String) {
    let repository = tests::repository();
    let manifest = std::fs::read_to_string(repository.join(manifest)).unwrap();
    // Where these tests are built, which need not be in the checkout.
    let target = tests::target().display().to_string();
    let manifest = manifest.replace("\"../../target/", "\"../target/").replace("\"../target/", &format!("\"{target}/"));
    let here = format!("cargo build --manifest-path {}/Cargo.toml --target-dir {target} ", repository.display());
    std::fs::write(folder.join("dormouse.toml"), change(manifest.replace("cargo build ", &here))).unwrap();
}
