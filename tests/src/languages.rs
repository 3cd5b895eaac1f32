//! Guests in languages other than Rust, and their toolchains, which are fetched into the target folder when missing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::{repository, run};

// Of the toolchains; the templates name the same.
const COMPONENTIZE_PY: &str = "componentize-py==0.25.1";
const COMPONENTIZE_QJS: &str = "componentize-qjs@0.4.5";
const ZIG: &str = "ziglang==0.17.1";
const WIT_BINDGEN: &str = "wit-bindgen-cli@0.63.0";

/// The folders of all toolchains' programs, to be put in front of `PATH`.
///
/// # Panics
///
/// If they are neither there nor to be had.
pub fn tools() -> &'static [PathBuf] {
    static FOLDERS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    FOLDERS.get_or_init(|| vec![python_tools(), javascript_tools(), cargo_tools()])
}

/// `PATH` with the toolchains in front.
pub fn path() -> std::ffi::OsString {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let folders = tools().iter().cloned().chain(std::env::split_paths(&own));
    std::env::join_paths(folders).expect("folders without colons")
}

/// The component of `tests/guests/python`, built by the first caller.
pub fn python() -> &'static Path {
    static COMPONENT: OnceLock<PathBuf> = OnceLock::new();
    COMPONENT.get_or_init(|| {
        let component = place("guest_python");
        let mut build = Command::new("componentize-py");
        build.args(["-q", "-d", "wit", "-d", "guest-sdk/python/dormouse/wit", "-w", "dormouse:python/function"]);
        build.args(["componentize", "dormouse.component", "-p", "tests/guests/python", "-p", "guest-sdk/python", "-o"]);
        run(build.arg(&component).current_dir(repository()).env("PATH", path()));
        component
    })
}

/// The component of `tests/guests/javascript`, built by the first caller.
pub fn javascript() -> &'static Path {
    static COMPONENT: OnceLock<PathBuf> = OnceLock::new();
    COMPONENT.get_or_init(|| {
        let component = place("guest_javascript");
        let mut build = Command::new("componentize-qjs");
        build.args(["--wit", "guest-sdk/javascript/wit", "--world", "function", "--module-root", "."]);
        build.args(["--js", "tests/guests/javascript/app.js", "--output"]);
        run(build.arg(&component).current_dir(repository()).env("PATH", path()));
        component
    })
}

fn place(name: &str) -> PathBuf {
    let folder = repository().join("target/guests");
    std::fs::create_dir_all(&folder).expect("a folder for components");
    folder.join(format!("{name}.wasm"))
}

fn javascript_tools() -> PathBuf {
    let folder = repository().join("target/tools/javascript");
    let programs = folder.join("node_modules/.bin");
    if !programs.join("componentize-qjs").is_file() {
        let mut install = Command::new("npm");
        install.args(["install", "--silent", "--no-fund", "--no-audit", "--no-save", "--prefix"]);
        run(install.arg(&folder).arg(COMPONENTIZE_QJS));
    }
    programs
}

fn python_tools() -> PathBuf {
    let folder = repository().join("target/tools/python");
    let programs = folder.join("bin");
    // Its programs name the folder that they were installed in, so they stop working when it moves.
    let works = |program: &str, ask: &str| Command::new(programs.join(program)).arg(ask).output().is_ok();
    if !works("componentize-py", "--version") || !works("python-zig", "version") {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        run(Command::new(programs.join("pip")).args(["install", "--quiet", COMPONENTIZE_PY, ZIG]));
    }
    programs
}

fn cargo_tools() -> PathBuf {
    let folder = repository().join("target/tools/cargo");
    let programs = folder.join("bin");
    if !programs.join("wit-bindgen").is_file() {
        let mut install = Command::new("cargo");
        install.args(["install", "--quiet", "--locked", "--no-default-features", "--features", "c", "--root"]);
        run(install.arg(&folder).arg(WIT_BINDGEN));
    }
    programs
}
