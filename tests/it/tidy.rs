//! The architecture as a test: who may use whom, who may name what, how long files are, and what nobody tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the host and those that each may use, beside itself. `server` wires planes and host, `cli` runs it.
const MAY_USE: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "access",
            "admin",
            "catalog",
            "clock",
            "config",
            "csv",
            "fc",
            "figures",
            "guest",
            "ids",
            "ledger",
            "machine",
            "private",
            "queue",
            "server",
            "telemetry",
        ],
    ),
    (
        "server",
        &[
            "access", "admin", "config", "data", "fc", "host", "machine", "private", "queue", "room", "shutdown",
            "trigger", "web",
        ],
    ),
    (
        "fc",
        &[
            "access",
            "catalog",
            "clock",
            "config",
            "guest",
            "host",
            "ids",
            "instance",
            "invoke",
            "log",
            "meter",
            "operator",
            "pool",
            "private",
            "queue",
            "room",
            "shutdown",
            "sqlite",
            "telemetry",
            "web",
            "traces",
        ],
    ),
    ("operator", &["access", "catalog", "clock", "config", "host", "ids", "web"]),
    ("trigger", &["catalog", "clock", "host", "ids", "queue"]),
    (
        "queue",
        &[
            "catalog",
            "chance",
            "clock",
            "config",
            "guest",
            "host",
            "ids",
            "instance",
            "invoke",
            "meter",
            "pool",
            "sqlite",
            "telemetry",
            "traces",
        ],
    ),
    (
        "data",
        &[
            "access",
            "catalog",
            "clock",
            "config",
            "fc",
            "guest",
            "host",
            "ids",
            "instance",
            "invoke",
            "meter",
            "operator",
            "proxies",
            "queue",
            "room",
            "telemetry",
            "web",
            "traces",
        ],
    ),
    (
        "admin",
        &[
            "access",
            "catalog",
            "clock",
            "config",
            "console",
            "fc",
            "guest",
            "host",
            "ids",
            "instance",
            "invoke",
            "ledger",
            "log",
            "operator",
            "pool",
            "queue",
            "server",
            "shutdown",
            "telemetry",
            "trigger",
            "web",
            "room",
        ],
    ),
    (
        "console",
        &[
            "access", "admin", "catalog", "clock", "csv", "figures", "guest", "host", "ids", "instance", "ledger",
            "operator", "pool", "queue", "web",
        ],
    ),
    ("web", &["access", "config", "ids", "instance", "private", "proxies", "room", "shutdown"]),
    (
        "invoke",
        &["access", "catalog", "chance", "guest", "host", "ids", "instance", "meter", "pool", "traces", "clock"],
    ),
    (
        "host",
        &[
            "access",
            "catalog",
            "clock",
            "config",
            "guest",
            "ids",
            "instance",
            "ledger",
            "log",
            "machine",
            "memory",
            "meter",
            "pool",
            "room",
            "shutdown",
            "telemetry",
            "traces",
        ],
    ),
    ("access", &["clock", "ids", "private", "sqlite"]),
    (
        "catalog",
        &["access", "clock", "config", "guest", "ids", "log", "memory", "meter", "private", "shutdown", "sqlite"],
    ),
    ("pool", &["chance", "clock", "ids", "instance", "machine", "memory", "meter", "shutdown", "telemetry", "traces"]),
    ("instance", &["clock", "guest", "ids", "log", "machine", "meter", "telemetry", "traces"]),
    ("guest", &["clock", "ids", "log", "machine", "memory", "meter", "traces"]),
    ("ledger", &["clock", "csv", "ids", "meter", "sqlite", "varint"]),
    ("sqlite", &["private"]),
    ("meter", &["clock", "ids"]),
    ("log", &["clock", "ids", "sqlite", "varint"]),
    ("telemetry", &["ids", "meter"]),
    ("config", &["access", "ids", "log", "meter", "proxies", "telemetry", "traces"]),
    ("proxies", &[]),
    ("csv", &[]),
    ("ids", &["clock"]),
    ("varint", &[]),
    ("chance", &[]),
    ("clock", &[]),
    ("figures", &[]),
    ("machine", &[]),
    ("memory", &[]),
    ("private", &[]),
    ("room", &[]),
    ("shutdown", &[]),
    ("traces", &["chance", "clock", "ids"]),
];

/// Crates that only some modules may name.
const RESERVED: &[(&str, &[&str])] = &[
    ("wasmtime", &["guest"]),
    ("wasmtime_wasi", &["guest"]),
    ("wasmtime_wasi_http", &["guest"]),
    ("axum", &["admin", "console"]),
    ("StatusCode", &["web", "data", "admin", "console", "fc", "cli"]),
    ("rusqlite", &["sqlite", "access", "catalog", "fc", "ledger", "log", "queue"]),
    ("reqwest", &["cli", "traces"]),
    ("opentelemetry", &["traces"]),
    ("opentelemetry_sdk", &["traces"]),
    ("opentelemetry_otlp", &["traces"]),
];

/// Code lines that a file may have.
const CODE_LINES_MAX: usize = 350;

/// Files that are longer, and why.
const LONGER: &[(&str, &str)] = &[];

/// Words that decide; their files know no clock, no lock and no task.
const PURE: &[&str] = &[
    "instance/lifecycle.rs",
    "instance/decide.rs",
    "instance/order.rs",
    "pool/policy.rs",
    "catalog/alias.rs",
    "queue/policy.rs",
    "queue/lanes.rs",
];

fn source() -> PathBuf {
    tests::repository().join("host/src")
}

/// All Rust files below `folder`, as paths from it and their text.
fn rust_files(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(folder).expect("below").to_string_lossy().into_owned();
                found.insert(name, fs::read_to_string(&path).expect("text"));
            }
        }
    }
    found
}

/// The text without comments and without its inline test module.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    let lines = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

fn module(file: &str) -> &str {
    let first = file.split('/').next().expect("a name");
    first.strip_suffix(".rs").unwrap_or(first)
}

/// Identifiers that follow `prefix` in `text`, such as the modules after `crate::`.
fn names_after<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let ends =
        |rest: &'a str| rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len());
    text.match_indices(prefix).map(|(at, _)| &text[at + prefix.len()..]).map(|rest| &rest[..ends(rest)]).collect()
}

#[test]
fn modules_use_only_those_they_may() {
    let mut faults = Vec::new();
    for (file, text) in rust_files(&source()) {
        let own = module(&file);
        if matches!(own, "lib" | "main") {
            continue;
        }
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == own) else {
            faults.push(format!("{file}: `{own}` is not in the table"));
            continue;
        };
        let code = flattened(&code(&text));
        for used in names_after(&code, "crate::") {
            let is_module = used.starts_with(|letter: char| letter.is_lowercase());
            if is_module && used != own && !allowed.contains(&used) {
                faults.push(format!("{file}: `{own}` may not use `{used}`"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The code with each of several modules in one `use crate::{..}` named by itself.
fn flattened(code: &str) -> String {
    let mut flat = code.to_owned();
    for (at, _) in code.match_indices("use crate::{") {
        let list = &code[at + "use crate::{".len()..];
        let list = &list[..list.find("};").unwrap_or(0)];
        flat.extend(list.split(',').map(|name| format!("\ncrate::{};", name.trim())));
    }
    flat
}

/// The files that a file uses, within the folder that it is in: `super::name` and, from a folder's own file,
/// `self::name` and `name::`.
fn siblings_used(file: &str, text: &str, all: &BTreeMap<String, String>) -> BTreeSet<String> {
    let path = Path::new(file);
    let folder = path.parent().expect("a folder");
    let stem = path.file_stem().expect("a name").to_string_lossy();
    // `pool/mod.rs` speaks for its folder, `host.rs` for the folder `host`; what they list is not what they use.
    let own = folder.join(&*stem);
    let code = code(text);
    let place = |base: &Path, name: &str| {
        let file = base.join(format!("{name}.rs")).to_string_lossy().into_owned();
        all.contains_key(&file).then_some(file)
    };
    let mut used: BTreeSet<String> =
        names_after(&flattened_super(&code), "super::").into_iter().filter_map(|name| place(folder, name)).collect();
    used.extend(names_after(&code, "self::").into_iter().filter_map(|name| place(&own, name)));
    used.remove(file);
    used
}

/// The code with each of several files in one `use super::{..}` named by itself.
fn flattened_super(code: &str) -> String {
    let mut flat = code.to_owned();
    for (at, _) in code.match_indices("use super::{") {
        let list = &code[at + "use super::{".len()..];
        let list = &list[..list.find("};").unwrap_or(0)];
        flat.extend(list.split(',').map(|name| format!("\nsuper::{};", name.trim())));
    }
    flat
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let files = rust_files(&source());
    let mut uses: BTreeMap<&str, BTreeSet<String>> =
        files.iter().map(|(file, text)| (file.as_str(), siblings_used(file, text, &files))).collect();
    // Files that use none that is left are not in a circle; what remains in the end is.
    loop {
        let free: Vec<&str> = uses.iter().filter(|(_, used)| used.is_empty()).map(|(file, _)| *file).collect();
        if free.is_empty() {
            break;
        }
        for file in free {
            uses.remove(file);
            uses.values_mut().for_each(|used| {
                used.remove(file);
            });
        }
    }
    assert!(uses.is_empty(), "files that use each other, or that use those which do: {uses:#?}");
}

#[test]
fn only_some_modules_name_the_engine_the_web_and_the_database() {
    let mut faults = Vec::new();
    for (file, text) in rust_files(&source()) {
        let code = code(&text);
        for (reserved, allowed) in RESERVED {
            let words = code.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
            let named = words.into_iter().any(|word| word == *reserved);
            if named && !allowed.contains(&module(&file)) {
                faults.push(format!("{file} names `{reserved}`, which belongs to {allowed:?}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let mut faults = Vec::new();
    for (file, text) in rust_files(&source()) {
        let lines = code(&text).lines().filter(|line| !line.trim().is_empty()).count();
        let longer = LONGER.iter().any(|(name, _)| *name == file);
        if lines > CODE_LINES_MAX && !longer && !file.contains("/tests") {
            faults.push(format!("{file} has {lines} code lines, more than {CODE_LINES_MAX}"));
        }
        if !text.starts_with("//!") {
            faults.push(format!("{file} does not begin by saying what it is for"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_decides_is_pure() {
    let files = rust_files(&source());
    for file in PURE {
        let code = code(&files[*file]);
        // `SystemTime` is a value; only asking the clock for it is not pure.
        for impure in ["async", "Instant", "::now(", "Mutex", "tokio", "std::fs", "tracing"] {
            assert!(!code.contains(impure), "{file} uses {impure}");
        }
    }
}

#[test]
fn every_counter_is_counted_somewhere() {
    let files = rust_files(&source());
    let all: String = files.values().map(|text| code(text)).collect();
    let is_counter = |line: &&str| [": Family<", ": Counter<", ": Counter,"].iter().any(|shape| line.contains(shape));
    let mut found = 0;
    for (file, text) in &files {
        for line in code(text).lines().filter(is_counter) {
            let name = line.split(':').next().expect("a name").split_whitespace().last().expect("a name");
            found += 1;
            let counted =
                [format!("{name}.get_or_create"), format!("{name}.inc")].iter().any(|use_| all.contains(use_));
            assert!(counted, "{file}: nothing counts `{name}`");
        }
    }
    assert!(found >= 9, "only {found} counters were found: has their shape changed?");
}

#[test]
fn every_guest_is_tested() {
    let tests: String = rust_files(&tests::repository().join("tests/it")).into_values().collect();
    for folder in ["examples", "tests/guests"] {
        for entry in fs::read_dir(tests::repository().join(folder)).expect("a folder").flatten() {
            let Ok(manifest) = fs::read_to_string(entry.path().join("Cargo.toml")) else { continue };
            // A library of guests is tested with them.
            if !manifest.contains("cdylib") {
                continue;
            }
            let name = manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
            let name = name.expect("a package has a name");
            assert!(tests.contains(&format!("\"{name}\"")), "no test deploys {name}");
        }
    }
}

#[test]
fn the_words_of_the_lifecycle_are_the_same_everywhere() {
    let states = ["starting", "initializing", "active", "freezing", "parked", "suspended", "stopping", "stopped"];
    let wit = fs::read_to_string(tests::repository().join("wit/function.wit")).expect("the contract");
    let lifecycle = fs::read_to_string(source().join("instance/lifecycle.rs")).expect("the state machine");
    let model = fs::read_to_string(source().join("admin/model.rs")).expect("the API");
    for state in states {
        assert!(lifecycle.contains(&format!("\"{state}\"")), "{state} is no state");
        assert!(model.contains(state), "{state} is not in the API");
    }
    for export in ["handler", "initializer", "pre-freeze", "pre-stop"] {
        assert!(wit.contains(&format!("export {export}: async func")), "{export} is not in the contract");
    }
}

#[test]
fn no_folder_is_at_the_top_that_the_design_does_not_name() {
    let expected = ["examples", "guest-sdk", "host", "target", "tests", "wit"];
    for entry in fs::read_dir(tests::repository()).expect("a folder").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !name.starts_with('.') {
            assert!(expected.contains(&name.as_str()), "{name}");
        }
    }
}
