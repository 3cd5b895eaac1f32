//! Components that nobody here wrote: examples from packages of the registries, built as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::{repository, run};

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
        let package = sources().join(self.package);
        let mut build = Command::new("cargo");
        build.args(["build", "--quiet", "--release", "--target", "wasm32-wasip2", "--example", self.example]);
        // One for each: examples of different packages have the same name.
        let target = folder().join(self.package);
        build.arg("--target-dir").arg(&target);
        run(build.arg("--manifest-path").arg(package.join("Cargo.toml")));
        let file = format!("wasm32-wasip2/release/examples/{}.wasm", self.example.replace('-', "_"));
        fs::read(target.join(file)).expect("cargo built it")
    }
}

fn folder() -> PathBuf {
    repository().join("target/foreign")
}

/// The packages' sources, as the registry has them. Each is made a workspace of its own: it must not look for one here.
fn sources() -> &'static Path {
    static SOURCES: OnceLock<PathBuf> = OnceLock::new();
    SOURCES.get_or_init(|| {
        let (folder, sources) = (folder(), folder().join("sources"));
        let all = [WASIP2, WASIP3, WSTD];
        if all.iter().all(|example| sources.join(example.package).join("Cargo.toml").is_file()) {
            return sources;
        }
        let wanted = all.iter().map(|example| format!("{} = \"={}\"\n", example.package, example.version));
        let manifest =
            "[package]\nname = \"foreign\"\nedition = \"2024\"\n\n[lib]\npath = \"lib.rs\"\n\n[workspace]\n\n";
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("lib.rs"), "").expect("a file");
        fs::write(folder.join("Cargo.toml"), format!("{manifest}[dependencies]\n{}", wanted.collect::<String>()))
            .expect("a manifest");
        run(Command::new("cargo").args(["vendor", "--quiet"]).arg(&sources).current_dir(&folder));
        for example in &all {
            let manifest = sources.join(example.package).join("Cargo.toml");
            let text = fs::read_to_string(&manifest).expect("a manifest");
            fs::write(&manifest, format!("{text}\n[workspace]\n")).expect("a manifest");
        }
        sources
    })
}
