//! What the languages of `dormouse new` bring: a template, a guest SDK, and tools that must be on the machine.

use std::path::Path;

use include_dir::{Dir, DirEntry, include_dir};

static RUST: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/templates/rust");
static RUST_SDK: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../guest-sdk/rust");
static PYTHON: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/templates/python");
static PYTHON_SDK: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../guest-sdk/python");
static C: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/templates/c");
static C_SDK: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../guest-sdk/c");
static JAVASCRIPT: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/templates/javascript");
static TYPESCRIPT: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/templates/typescript");
static JAVASCRIPT_HTTP: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/templates/javascript-http");
pub(super) static WIT: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../wit");
pub(super) static JAVASCRIPT_SDK: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../guest-sdk/javascript");

/// Tools that build commands call, and how to get them.
const TOOLS: [(&str, &str); 9] = [
    ("cargo", "install Rust from https://rustup.rs"),
    ("componentize-py", "`pip install componentize-py==0.25.1` (Python 3.10 or later)"),
    ("npm", "install Node.js 20 or later, which brings it (Debian: `apt install nodejs npm`)"),
    ("npx", "install Node.js 20 or later, which brings it (Debian: `apt install nodejs npm`)"),
    ("make", "install it from your system's packages (Debian: `apt install make`)"),
    ("clang", "install it from your system's packages (Debian: `apt install clang lld wasi-libc`)"),
    ("python-zig", "`pip install ziglang==0.17.1` (clang and wasi-libc)"),
    ("wit-bindgen", "`cargo install --locked wit-bindgen-cli@0.63.0`"),
    ("wasm-tools", "`cargo install wasm-tools`"),
];

/// A language that functions are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Language {
    /// With cargo and the target wasm32-wasip2
    #[default]
    Rust,
    /// With componentize-py
    Python,
    /// With componentize-qjs
    Javascript,
    /// The same, checked by the TypeScript compiler
    Typescript,
    /// A web application with Hono, with componentize-js
    JavascriptHttp,
    /// With wit-bindgen, and clang and wasi-libc as Zig brings them
    C,
}

impl Language {
    /// The project's files.
    pub(super) fn template(self) -> &'static Dir<'static> {
        match self {
            Language::Rust => &RUST,
            Language::Python => &PYTHON,
            Language::Javascript => &JAVASCRIPT,
            Language::Typescript => &TYPESCRIPT,
            Language::JavascriptHttp => &JAVASCRIPT_HTTP,
            Language::C => &C,
        }
    }

    /// What becomes part of the project: the guest SDK and the contract, each with its folder.
    pub(super) fn vendored(self) -> Vec<(&'static Dir<'static>, &'static str)> {
        let sdk = match self {
            Language::Rust => (&RUST_SDK, "vendor/guest-sdk/rust"),
            Language::Python => (&PYTHON_SDK, "vendor"),
            Language::Javascript | Language::Typescript => (&JAVASCRIPT_SDK, "vendor/dormouse"),
            Language::C => (&C_SDK, "vendor/dormouse"),
            // It is written for any host of `wasi:http`.
            Language::JavascriptHttp => return Vec::new(),
        };
        vec![sdk, (&WIT, "vendor/wit")]
    }
}

/// All files below a folder of this binary, with their paths from it.
pub(super) fn embedded(folder: &Dir<'static>) -> Vec<(&'static Path, &'static [u8])> {
    let mut found = Vec::new();
    for entry in folder.entries() {
        match entry {
            DirEntry::Dir(inner) => found.extend(embedded(inner)),
            DirEntry::File(file) => found.push((file.path(), file.contents())),
        }
    }
    found
}

/// The first tool of a build command that is not on the machine, and how to get it. Only tools that are known here are
/// looked for: what else a command calls is the shell's business.
pub(super) fn missing_tool(command: &str) -> Option<(&'static str, &'static str)> {
    missing_in(command, std::env::var_os("PATH").unwrap_or_default().as_os_str())
}

fn missing_in(command: &str, path: &std::ffi::OsStr) -> Option<(&'static str, &'static str)> {
    let mut words = command.split(|letter: char| letter.is_whitespace() || ";&|()".contains(letter));
    words.find_map(|word| {
        let tool = TOOLS.into_iter().find(|(tool, _)| *tool == word)?;
        let found = std::env::split_paths(path).any(|folder| Path::new(&folder).join(tool.0).is_file());
        (!found).then_some(tool)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named_and_others_are_left_to_the_shell() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("npm"), "").unwrap();
        let missing = |command| missing_in(command, folder.path().as_os_str()).map(|(tool, _)| tool);
        assert_eq!(missing("npm install && npx tsc"), Some("npx"));
        assert_eq!(missing("(cd app; componentize-py -d wit)"), Some("componentize-py"));
        assert_eq!(missing("npm install"), None);
        assert_eq!(missing("./make-it clanged"), None);
    }
}
