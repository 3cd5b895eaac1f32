//! `dormouse new`: starts a project from the templates in this binary.
//!
//! The guest SDK and the WIT contract are in the binary too and become part of the project, so that it builds without
//! any registry having them, and with exactly the contract of this host.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::ids::FunctionName;

use super::language::{Language, embedded};
use super::manifest::FILE_NAME as MANIFEST;
use super::output;
use super::serverless::Template;

/// Names that cargo refuses for a package, or that would hide a crate every program uses.
const NOT_FOR_CRATES: [&str; 45] = [
    "Self",
    "alloc",
    "as",
    "async",
    "await",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "fn",
    "for",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "match",
    "mod",
    "move",
    "mut",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "type",
    "union",
    "unsafe",
    "use",
    "where",
    "while",
    "yield",
];

/// Write a new function
///
/// Makes a folder with a small function, its manifest, the guest SDK and the contract if it needs them: it builds as it is
/// and runs with `dormouse up`. Nothing is fetched except what the language's own tools need.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  dormouse new hello\n  cd hello\n  dormouse up --watch\n\n  \
                        dormouse new metrics --lang python\n  dormouse new --from s.yaml")]
pub(super) struct New {
    /// The function's name, and the folder's
    #[arg(required_unless_present = "from")]
    name: Option<FunctionName>,
    /// Write a `dormouse.toml` beside this file of Serverless Devs, an `s.yaml`, for the functions in it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "path", "lang"])]
    from: Option<PathBuf>,
    /// The folder, if it shall have another name; it must be empty or not exist
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// The language it is written in
    #[arg(long, value_enum, default_value_t)]
    lang: Language,
}

impl New {
    pub(super) fn name(&self) -> &str {
        self.name.as_ref().map_or("a manifest", FunctionName::as_str)
    }

    pub(super) fn run(self) -> anyhow::Result<()> {
        let Some(name) = self.name else { return manifest_from(&self.from.unwrap_or_default()) };
        let folder = self.path.clone().unwrap_or_else(|| PathBuf::from(name.as_str()));
        create(&name, self.lang, &folder)?;
        let (shown, readme) = (folder.display(), fs::read_to_string(folder.join("README.md")).unwrap_or_default());
        let once: String = once(&readme).map(|line| format!("\n  {line}")).collect();
        output::print(&format!("created {name} in {shown}\n\nNext:\n  cd {shown}{once}\n  dormouse up --watch"))?;
        Ok(())
    }
}

/// What a project's README does before the first `dormouse up`.
fn once(readme: &str) -> impl Iterator<Item = &str> {
    let first = readme.lines().skip_while(|line| *line != "```sh").skip(1);
    first.take_while(|line| !line.starts_with("dormouse up") && *line != "```")
}

/// Writes the manifest of an `s.yaml` beside it.
fn manifest_from(template: &Path) -> anyhow::Result<()> {
    let template = Template::read(template)?;
    let (text, notes) = template.to_manifest()?;
    let path = template.folder.join(MANIFEST);
    let mut file = match fs::File::create_new(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!("{} is there already; move it away first", path.display())
        }
        file => file.with_context(|| format!("create {}", path.display()))?,
    };
    file.write_all(text.as_bytes()).with_context(|| format!("write {}", path.display()))?;
    notes.iter().for_each(|note| output::note(note));
    let functions = template.resources.len();
    let place = template.folder.display();
    output::print(&format!("wrote {} with {functions} functions\n\nNext:\n  dormouse up {place}", path.display()))?;
    Ok(())
}

fn create(name: &FunctionName, language: Language, folder: &Path) -> anyhow::Result<()> {
    let crate_name = name.as_str().replace('-', "_");
    if language == Language::Rust && NOT_FOR_CRATES.contains(&crate_name.as_str()) {
        bail!("`{name}` cannot be the name of a Rust crate; choose another");
    }
    let is_empty = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(error).with_context(|| format!("look into {}", folder.display())),
    };
    if !is_empty {
        bail!("{} is not empty; choose another folder with `--path`", folder.display());
    }
    let placeholders = BTreeMap::from([("name", name.as_str()), ("crate", crate_name.as_str())]);
    for (path, contents) in embedded(language.template()) {
        let contents = match std::str::from_utf8(contents) {
            Ok(text) => filled(text, &placeholders).into_bytes(),
            Err(_) => contents.to_owned(),
        };
        write(&folder.join(file_name(path)), &contents)?;
    }
    for (vendored, place) in language.vendored() {
        for (path, contents) in embedded(vendored).into_iter().filter(|(path, _)| belongs(path)) {
            write(&folder.join(place).join(path), contents)?;
        }
    }
    Ok(())
}

/// Whether a file of ours belongs into a project: not what cargo built here, not the SDK's own tests, nothing hidden.
fn belongs(path: &Path) -> bool {
    let parts = path.iter().map(|part| part.to_string_lossy());
    parts.into_iter().all(|part| part != "target" && part != "tests" && !part.starts_with('.'))
}

/// The name a template's file gets. `Cargo.toml` and `.gitignore` would act on this repository, so they are disguised.
fn file_name(path: &Path) -> PathBuf {
    let Some(plain) = path.to_str().and_then(|path| path.strip_suffix(".template")) else { return path.to_owned() };
    let plain = Path::new(plain);
    match plain.file_name() {
        Some(name) if name == "gitignore" => plain.with_file_name(".gitignore"),
        Some(_) | None => plain.to_owned(),
    }
}

/// Replaces `{{name}}` by its value; what is no placeholder of ours stays.
fn filled(text: &str, placeholders: &BTreeMap<&str, &str>) -> String {
    placeholders.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value))
}

fn write(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    fs::write(path, contents).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_others_stay() {
        let placeholders = BTreeMap::from([("name", "my-fn"), ("crate", "my_fn")]);
        assert_eq!(
            filled("{{name}} {{crate}}.wasm {{other}} {name}", &placeholders),
            "my-fn my_fn.wasm {{other}} {name}"
        );
    }

    #[test]
    fn disguised_files_get_their_names() {
        for (from, to) in [
            ("Cargo.toml.template", "Cargo.toml"),
            ("a/gitignore.template", "a/.gitignore"),
            ("src/lib.rs", "src/lib.rs"),
            ("src/lib.rs.template", "src/lib.rs"),
        ] {
            assert_eq!(file_name(Path::new(from)), Path::new(to));
        }
    }

    #[test]
    fn build_products_and_hidden_files_stay_here() {
        assert!(belongs(Path::new("src/lib.rs")));
        for path in ["target/debug/x", "tests/instance.rs", "src/.x.swp", ".git/HEAD"] {
            assert!(!belongs(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn a_project_has_manifest_sdk_and_contract_and_no_placeholder() {
        let sdks = [
            (Language::Rust, vec!["vendor/wit/function.wit", "vendor/guest-sdk/rust/Cargo.toml"]),
            (Language::Python, vec!["vendor/wit/function.wit", "vendor/dormouse/__init__.py"]),
            (Language::Javascript, vec!["vendor/dormouse/dormouse.js", "vendor/dormouse/wit/deps/function.wit"]),
            (Language::Typescript, vec!["vendor/dormouse/dormouse.d.ts", "vendor/dormouse/wit/deps/function.wit"]),
            (Language::C, vec!["vendor/dormouse/dormouse_sdk.h", "vendor/dormouse/wit/deps/function.wit"]),
            (Language::JavascriptHttp, vec!["world.wit"]),
        ];
        for (language, own) in sdks {
            let parent = tempfile::tempdir().unwrap();
            let folder = parent.path().join("my-fn");
            create(&"my-fn".parse().unwrap(), language, &folder).unwrap();
            for file in ["dormouse.toml", "README.md", ".gitignore"].into_iter().chain(own) {
                assert!(folder.join(file).is_file(), "{language:?}: {file}");
            }
            for (path, _) in embedded(language.template()) {
                let text = fs::read_to_string(folder.join(file_name(path))).unwrap();
                assert!(!text.contains("{{name}}") && !text.contains("{{crate}}"), "{language:?}: {}", path.display());
            }
            let again = create(&"my-fn".parse().unwrap(), language, &folder).unwrap_err().to_string();
            assert!(again.contains("is not empty"), "{again}");
        }
    }

    #[test]
    fn keywords_are_refused_where_they_would_name_a_crate() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["fn", "std", "test"] {
            let folder = parent.path().join(name);
            assert!(create(&name.parse().unwrap(), Language::Rust, &folder).is_err(), "{name}");
            create(&name.parse().unwrap(), Language::Python, &folder).unwrap();
        }
    }
}
