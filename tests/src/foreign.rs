//! Components that nobody here wrote: examples from packages of the registries, built as they are.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::{cache, run};

/// A package and its version, and which of its examples is a server.
pub struct Example {
    package: &'static str,
    version: &'static str,
    example: &'static str,
}

/// `wasi:http` 0.2 by its bindings alone.
pub const WASIP2: Example = Example { package: "wasip2", version: "2.0.1", example: "http-proxy" };
/// `wasi:http` 0.3 by its bindings alone.
pub const WASIP3: Example = Example { package: "wasip3", version: "0.9.0", example: "http-proxy" };
/// A server of many paths, on an asynchronous runtime of its own over 0.2.
pub const WSTD: Example = Example { package: "wstd", version: "0.6.8", example: "http_server" };

impl Example {
    /// The component, built from the package's own sources.
    ///
    /// # Panics
    ///
    /// If it cannot be had or built.
    pub fn component(&self) -> Vec<u8> {
        let key = cache::hash(&[include_str!("foreign.rs")], &[]);
        let built = cache::entry(&format!("foreign/{}", self.package), key, |folder| {
            let package = sources().join(self.package);
            // One for each: examples of different packages have the same name.
            let target = folder.join("target");
            let mut build = Command::new("cargo");
            build.args(["build", "--quiet", "--release", "--target", "wasm32-wasip2", "--example", self.example]);
            build.arg("--target-dir").arg(&target).arg("--manifest-path").arg(package.join("Cargo.toml"));
            run(&mut build);
            let file = format!("wasm32-wasip2/release/examples/{}.wasm", self.example.replace('-', "_"));
            fs::copy(target.join(file), folder.join(COMPONENT)).expect("cargo built it");
            fs::remove_dir_all(target).expect("what was built on the way");
        });
        fs::read(built.join(COMPONENT)).expect("it is in the cache")
    }
}

const COMPONENT: &str = "component.wasm";

/// The packages' sources, as the registry has them. Each is made a workspace of its own: it must not look for one here.
fn sources() -> PathBuf {
    let all = [WASIP2, WASIP3, WSTD];
    let wanted: String =
        all.iter().map(|example| format!("{} = \"={}\"\n", example.package, example.version)).collect();
    let package = "[package]\nname = \"foreign\"\nedition = \"2024\"\n\n[lib]\npath = \"lib.rs\"\n\n[workspace]\n\n";
    let manifest = format!("{package}[dependencies]\n{wanted}");
    let kept = cache::entry("foreign/sources", cache::hash(&[&manifest], &[]), |folder| {
        fs::write(folder.join("lib.rs"), "").expect("a file");
        fs::write(folder.join("Cargo.toml"), &manifest).expect("a manifest");
        run(Command::new("cargo").args(["vendor", "--quiet", "vendor"]).current_dir(folder));
        for example in &all {
            let manifest = folder.join("vendor").join(example.package).join("Cargo.toml");
            let text = fs::read_to_string(&manifest).expect("a manifest");
            fs::write(&manifest, format!("{text}\n[workspace]\n")).expect("a manifest");
        }
    });
    kept.join("vendor")
}
