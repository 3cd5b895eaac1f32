//! What tests and benchmarks share: the guests, built from their sources when those have changed.

pub mod cache;
pub mod foreign;
pub mod languages;
pub mod text;
pub mod wit_bindgen;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The target that guests are built for.
const TARGET: &str = "wasm32-wasip2";

/// A client of hosts, with TLS and without. Which certificates are shown to it is not for it to see.
///
/// # Panics
///
/// If it cannot be made.
pub fn client() -> reqwest::Client {
    // Fails if it was done before.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().expect("a client")
}

/// The repository's folder.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the repository")
}

/// The folder that cargo builds this workspace into. It need not be in the checkout: this program lies in it.
///
/// # Panics
///
/// If the running program was not built by cargo.
pub fn target() -> PathBuf {
    let program = std::env::current_exe().expect("a program has a path");
    let mut above = program.ancestors();
    let target = above.find(|folder| folder.join("CACHEDIR.TAG").is_file());
    target.expect("cargo marks its target folder with CACHEDIR.TAG").to_owned()
}

/// The component of a package in `examples` or `tests/guests`, such as `guest-probe` or `example-hello`.
///
/// # Panics
///
/// If it cannot be built: no test can go on without it.
pub fn component(package: &str) -> Vec<u8> {
    let path = match package {
        "guest-python" => languages::python().to_owned(),
        "guest-javascript" => languages::javascript().to_owned(),
        "guest-hono" => languages::hono().to_owned(),
        "guest-fetch-event" => languages::fetch_event().to_owned(),
        "guest-c" => languages::c().to_owned(),
        _ => components().join(format!("{}.wasm", package.replace('-', "_"))),
    };
    let file = std::fs::read(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    dormouse::cli::component::from_file(file).unwrap_or_else(|error| panic!("{}: {error:#}", path.display()))
}

/// The folder of all components, built by the first caller.
fn components() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // A machine that has just the toolchain has only its own target.
        if !installed_targets().lines().any(|line| line == TARGET) {
            run(Command::new("rustup").args(["target", "add", TARGET]));
        }
        let packages = ["hello", "counter", "tracing", "graceful", "background", "cpu", "orders", "sleeper"];
        let mut build = Command::new("cargo");
        build.args(["build", "--quiet", "--release", "--target", TARGET]);
        let guests = ["probe", "sync", "http-02", "http-03"].map(|guest| format!("guest-{guest}"));
        let examples = packages.map(|example| format!("example-{example}"));
        build.args(guests.iter().chain(&examples).flat_map(|package| ["-p", package]));
        let target = target();
        // Benchmarks run with variables that would make cargo build everything anew.
        run(build.current_dir(repository()).env("CARGO_TARGET_DIR", &target).env_remove("RUSTFLAGS"));
        target.join(TARGET).join("release")
    })
}

fn installed_targets() -> String {
    let listed = Command::new("rustup").args(["target", "list", "--installed"]).output();
    listed.map(|listed| String::from_utf8_lossy(&listed.stdout).into_owned()).unwrap_or_default()
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?} ended with {status}");
}
