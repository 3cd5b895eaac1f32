//! Guests in languages other than Rust, and their toolchains, which are fetched into the target folder when missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::{repository, run};

// Of the toolchains; the templates name the same.
const COMPONENTIZE_PY: &str = "componentize-py==0.25.1";
const FROM_NPM: [&str; 7] = [
    "componentize-qjs@0.4.5",
    "@bytecodealliance/componentize-js@0.23.0",
    "@bytecodealliance/jco@1.35.0",
    "@bytecodealliance/jco-std@0.5.0",
    "@bytecodealliance/preview2-shim@0.25.0",
    "esbuild@0.28.2",
    "hono@4.13.19",
];
const ZIG: &str = "ziglang==0.17.1";
const WIT_BINDGEN: &str = "wit-bindgen-cli@0.63.0";

/// The version of WASI whose interfaces jco brings.
const WASI: &str = "0.2.12";

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

/// The component of `tests/guests/hono`, built by the first caller.
pub fn hono() -> &'static Path {
    static COMPONENT: OnceLock<PathBuf> = OnceLock::new();
    COMPONENT.get_or_init(|| {
        let bundle = folder("hono").join("app.js");
        let mut build = Command::new("esbuild");
        build.args([
            "tests/guests/hono/app.js",
            "--bundle",
            "--format=esm",
            "--external:wasi:*",
            "--log-level=warning",
        ]);
        build.arg(format!("--outfile={}", bundle.display())).env("NODE_PATH", node_modules());
        run(build.current_dir(repository()).env("PATH", path()));
        componentize_js("hono", &bundle, WASI)
    })
}

/// The component of `tests/guests/fetch-event`, built by the first caller.
pub fn fetch_event() -> &'static Path {
    static COMPONENT: OnceLock<PathBuf> = OnceLock::new();
    let version = "0.2.10";
    COMPONENT.get_or_init(|| componentize_js("fetch-event", &guest("fetch-event").join("app.js"), version))
}

/// Makes a component of a module by the world of its guest, whose interfaces are of a version of WASI that differs from
/// the newest by its number only.
fn componentize_js(guest_name: &str, module: &Path, version: &str) -> PathBuf {
    let (component, wit) = (place(&format!("guest_{}", guest_name.replace('-', "_"))), folder(guest_name).join("wit"));
    let interfaces = node_modules().join("@bytecodealliance/jco/lib/wit/builtin").join(WASI);
    let _ = fs::remove_dir_all(&wit);
    for package in fs::read_dir(interfaces).expect("the interfaces").flatten() {
        let text = fs::read_to_string(package.path().join("package.wit")).expect("a package");
        let deps = wit.join("deps").join(package.file_name());
        fs::create_dir_all(&deps).expect("a folder");
        fs::write(deps.join("package.wit"), text.replace(WASI, version)).expect("a file");
    }
    fs::copy(guest(guest_name).join("world.wit"), wit.join("world.wit")).expect("a world");
    let mut componentize = Command::new("componentize-js");
    componentize.arg(module).arg("--wit").arg(&wit).args(["--world-name", "server", "--out"]).arg(&component);
    run(componentize.env("PATH", path()));
    component
}

/// The component of `tests/guests/c`, built by the first caller.
pub fn c() -> &'static Path {
    static COMPONENT: OnceLock<PathBuf> = OnceLock::new();
    COMPONENT.get_or_init(|| {
        let (component, bindings) = (place("guest_c"), folder("c"));
        let sources = |folder: &str, names: [&str; 2]| names.map(|name| repository().join(folder).join(name));
        let mut generate = Command::new("wit-bindgen");
        generate.args(["c", "--sync", "all", "--rename-world", "dormouse", "--world", "function", "--out-dir"]);
        run(generate
            .arg(&bindings)
            .arg(repository().join("guest-sdk/c/wit"))
            .env("PATH", path())
            .stdout(Stdio::null()));
        let mut compile = Command::new("python-zig");
        compile.args([
            "cc",
            "--target=wasm32-wasi",
            "-mexec-model=reactor",
            "-D_GNU_SOURCE",
            "-Wall",
            "-Wextra",
            "-Os",
        ]);
        // As the template has it: the linker's own stack takes up 16 MB of what an instance may use.
        compile
            .args(["-s", "-Wl,-z,stack-size=1048576"])
            .arg("-I")
            .arg(&bindings)
            .arg("-I")
            .arg(repository().join("guest-sdk/c"));
        compile.args(["dormouse.c", "dormouse_component_type.o"].map(|name| bindings.join(name)));
        compile.args(sources("guest-sdk/c", ["dormouse_sdk.c", "dormouse_fetch.c"]));
        compile.args(sources("tests/guests/c", ["app.c", "json.c"]));
        run(compile.arg("-o").arg(&component).env("PATH", path()));
        component
    })
}

fn place(name: &str) -> PathBuf {
    folder("").join(format!("{name}.wasm"))
}

fn guest(name: &str) -> PathBuf {
    repository().join("tests/guests").join(name)
}

fn node_modules() -> PathBuf {
    repository().join("target/tools/javascript/node_modules")
}

/// A folder for what is built on the way to a component.
fn folder(name: &str) -> PathBuf {
    let folder = repository().join("target/guests").join(name);
    fs::create_dir_all(&folder).expect("a folder for components");
    folder
}

fn javascript_tools() -> PathBuf {
    let folder = repository().join("target/tools/javascript");
    let programs = folder.join("node_modules/.bin");
    if !["componentize-qjs", "componentize-js", "esbuild"].iter().all(|program| programs.join(program).is_file()) {
        let mut install = Command::new("npm");
        install.args(["install", "--silent", "--no-fund", "--no-audit", "--no-save", "--prefix"]);
        run(install.arg(&folder).args(FROM_NPM));
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
