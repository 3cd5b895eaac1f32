//! Guests in languages other than Rust, and their toolchains. Both are kept in the cache, so they are fetched and built
//! once for each version and each state of their sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::{cache, repository, run, wit_bindgen};

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

/// The version of WASI whose interfaces jco brings.
const WASI: &str = "0.2.12";

/// The folders of all toolchains' programs but `wit-bindgen`, to be put in front of `PATH`.
///
/// # Panics
///
/// If they are neither there nor to be had.
pub fn tools() -> Vec<PathBuf> {
    vec![python_tools().join("bin"), node_modules().join(".bin")]
}

/// `PATH` with the toolchains in front.
pub fn path() -> std::ffi::OsString {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let folders = tools().into_iter().chain(std::env::split_paths(&own));
    std::env::join_paths(folders).expect("folders without colons")
}

/// The component of `tests/guests/python`.
pub fn python() -> &'static Path {
    static COMPONENT: OnceLock<PathBuf> = OnceLock::new();
    COMPONENT.get_or_init(|| {
        guest("python", &["tests/guests/python", "guest-sdk/python", "wit"], |_, component| {
            let mut build = Command::new("componentize-py");
            build.args(["-q", "-d", "wit", "-d", "guest-sdk/python/dormouse/wit", "-w", "dormouse:python/function"]);
            build.args(["componentize", "dormouse.component", "-p", "tests/guests/python", "-p", "guest-sdk/python"]);
            run(build.arg("-o").arg(component).current_dir(repository()).env("PATH", path()));
        })
    })
}

/// The component of `tests/guests/javascript`.
pub fn javascript() -> &'static Path {
    static COMPONENT: OnceLock<PathBuf> = OnceLock::new();
    COMPONENT.get_or_init(|| {
        guest("javascript", &["tests/guests/javascript", "guest-sdk/javascript"], |_, component| {
            let mut build = Command::new("componentize-qjs");
            build.args(["--wit", "guest-sdk/javascript/wit", "--world", "function", "--module-root", "."]);
            build.args(["--js", "tests/guests/javascript/app.js", "--output"]);
            run(build.arg(component).current_dir(repository()).env("PATH", path()));
        })
    })
}

/// The component of `tests/guests/hono`.
pub fn hono() -> &'static Path {
    static COMPONENT: OnceLock<PathBuf> = OnceLock::new();
    COMPONENT.get_or_init(|| {
        guest("hono", &["tests/guests/hono", "tests/guests/javascript"], |folder, component| {
            let bundle = folder.join("app.js");
            let mut build = Command::new("esbuild");
            build.args(["tests/guests/hono/app.js", "--bundle", "--format=esm", "--external:wasi:*"]);
            build.args(["--log-level=warning", &format!("--outfile={}", bundle.display())]);
            run(build.env("NODE_PATH", node_modules()).current_dir(repository()).env("PATH", path()));
            componentize_js("hono", &bundle, WASI, folder, component);
        })
    })
}

/// The component of `tests/guests/fetch-event`.
pub fn fetch_event() -> &'static Path {
    static COMPONENT: OnceLock<PathBuf> = OnceLock::new();
    COMPONENT.get_or_init(|| {
        guest("fetch-event", &["tests/guests/fetch-event"], |folder, component| {
            let module = repository().join("tests/guests/fetch-event/app.js");
            componentize_js("fetch-event", &module, "0.2.10", folder, component);
        })
    })
}

/// Makes a component of a module by the world of its guest, whose interfaces are of a version of WASI that differs from
/// the newest by its number only.
fn componentize_js(guest: &str, module: &Path, version: &str, folder: &Path, component: &Path) {
    let wit = folder.join("wit");
    let interfaces = node_modules().join("@bytecodealliance/jco/lib/wit/builtin").join(WASI);
    for package in fs::read_dir(interfaces).expect("the interfaces").flatten() {
        let text = fs::read_to_string(package.path().join("package.wit")).expect("a package");
        let deps = wit.join("deps").join(package.file_name());
        fs::create_dir_all(&deps).expect("a folder");
        fs::write(deps.join("package.wit"), text.replace(WASI, version)).expect("a file");
    }
    let world = repository().join("tests/guests").join(guest).join("world.wit");
    fs::copy(world, wit.join("world.wit")).expect("a world");
    let mut componentize = Command::new("componentize-js");
    componentize.arg(module).arg("--wit").arg(&wit).args(["--world-name", "server", "--out"]).arg(component);
    run(componentize.env("PATH", path()));
}

/// The component of `tests/guests/c`.
pub fn c() -> &'static Path {
    static COMPONENT: OnceLock<PathBuf> = OnceLock::new();
    COMPONENT.get_or_init(|| {
        guest("c", &["tests/guests/c", "guest-sdk/c"], |folder, component| {
            let bindings = folder.display().to_string();
            let generate = ["wit-bindgen", "c", "--sync", "all", "--rename-world", "dormouse", "--world", "function"];
            let (sdk, guest) = (repository().join("guest-sdk/c"), repository().join("tests/guests/c"));
            let wit = sdk.join("wit").display().to_string();
            wit_bindgen::run(generate.iter().copied().chain(["--out-dir", &bindings, &wit])).expect("bindings");
            let mut compile = Command::new("python-zig");
            compile.args(["cc", "--target=wasm32-wasi", "-mexec-model=reactor", "-D_GNU_SOURCE", "-Wall", "-Wextra"]);
            // As the template has it: the linker's own stack takes up 16 MB of what an instance may use.
            compile.args(["-Os", "-s", "-Wl,-z,stack-size=1048576", "-I", &bindings, "-I"]).arg(&sdk);
            compile.args(["dormouse.c", "dormouse_component_type.o"].map(|name| folder.join(name)));
            compile.args(["dormouse_sdk.c", "dormouse_fetch.c"].map(|name| sdk.join(name)));
            compile.args(["app.c", "json.c"].map(|name| guest.join(name)));
            run(compile.arg("-o").arg(component).env("PATH", path()));
        })
    })
}

/// The component that `build` makes of these sources, given a folder for what is made on the way and the component's path.
fn guest(name: &str, sources: &[&str], build: impl FnOnce(&Path, &Path)) -> PathBuf {
    let file = format!("guest_{}.wasm", name.replace('-', "_"));
    // This file has the commands and the versions of the tools.
    let hash = cache::hash(&[include_str!("languages.rs")], sources);
    cache::entry(&format!("guests/{name}"), hash, |folder| build(folder, &folder.join(&file))).join(&file)
}

fn node_modules() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| node_modules_with(&FROM_NPM)).clone()
}

/// The folder `node_modules` with these packages.
///
/// # Panics
///
/// If a package cannot be installed.
pub fn node_modules_with(packages: &[&str]) -> PathBuf {
    let folder = cache::entry("tools/javascript", cache::hash(packages, &[]), |folder| {
        let mut install = Command::new("npm");
        install.args(["install", "--silent", "--no-fund", "--no-audit", "--no-save", "--prefix"]);
        run(install.arg(folder).args(packages));
    });
    folder.join("node_modules")
}

/// The folder of a virtual environment of Python with these packages.
///
/// # Panics
///
/// If a package cannot be installed.
pub fn python_with(packages: &[&str]) -> PathBuf {
    cache::entry("tools/python", cache::hash(packages, &[]), |folder| {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder));
        run(Command::new(folder.join("bin/pip")).args(["install", "--quiet"]).args(packages));
    })
}

fn python_tools() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| python_with(&[COMPONENTIZE_PY, ZIG]))
}
