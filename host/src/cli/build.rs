//! `dormouse build`: runs the build commands of a manifest. `up` and `deploy --build` use it too.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::ids::FunctionName;

use super::language::missing_tool;
use super::manifest::{Manifest, ManifestFunction};
use super::output;
use super::progress::Progress;
use super::serverless::Template;
use super::shell::run_captured;

/// The target that cargo makes components for.
pub(super) const TARGET: &str = "wasm32-wasip2";

/// Build the components of a project
///
/// Runs each distinct `build` command of `dormouse.toml` once, in the manifest's folder, through the shell, and checks
/// that it left the components that the manifest names. If a command needs Rust's `wasm32-wasip2` target and rustup
/// does not have it, it is added first.
///
/// With `--template`, builds the functions of an `s.yaml`: folders of Python or Node.js become components in
/// `.dormouse-build` beside it.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  dormouse build\n  dormouse build examples --function hello\n  dormouse build -t s.yaml"
)]
pub(super) struct Build {
    /// The manifest, or the folder that has it
    #[arg(default_value = ".")]
    manifest: PathBuf,
    /// A file of Serverless Devs, `s.yaml`, in the place of a manifest
    #[arg(long, short, value_name = "FILE", conflicts_with = "manifest")]
    template: Option<PathBuf>,
    /// Only this function; may be repeated
    #[arg(long = "function", value_name = "NAME")]
    functions: Vec<FunctionName>,
}

impl Build {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let manifest = match &self.template {
            Some(template) => Template::read(template)?.only(&self.functions)?.manifest(),
            None => Manifest::read(&self.manifest)?.only(&self.functions)?,
        };
        build(&manifest, &Progress::new()).await?;
        for function in &manifest.functions {
            output::print(&format!("{}: {}", function.name, function.component.display()))?;
        }
        Ok(())
    }
}

/// Builds all functions of a manifest. Commands run one after another: cargo would only wait for its own lock.
pub(super) async fn build(manifest: &Manifest, progress: &Progress) -> anyhow::Result<()> {
    let commands = commands(&manifest.functions);
    if commands.iter().any(|(command, _)| wants_target(command)) {
        ensure_target(&manifest.folder, progress).await?;
    }
    for (command, functions) in commands {
        let names = functions.iter().map(|function| function.name.as_str()).collect::<Vec<_>>().join(", ");
        if let Some((tool, remedy)) = missing_tool(command) {
            bail!("function `{names}`: `{command}` needs `{tool}`, which is not installed: {remedy}");
        }
        let step = progress.step(&names, &format!("build with `{command}`"));
        let captured = run_captured(command, &manifest.folder, &step).await;
        let captured = captured.with_context(|| format!("run `{command}` in {}", manifest.folder.display()))?;
        if !captured.status.success() {
            drop(step);
            progress.note(captured.output.trim_end());
            bail!("function `{names}`: `{command}` ended with {}; what it said stands above", captured.status);
        }
        step.done("built");
    }
    for function in &manifest.functions {
        if let Some(source) = &function.source {
            source.build(&function.component, function.name.as_str(), progress).await?;
        }
    }
    match manifest.functions.iter().find(|function| !function.component.is_file()) {
        Some(function) => Err(missing(function)),
        None => Ok(()),
    }
}

fn missing(function: &ManifestFunction) -> anyhow::Error {
    let (name, component) = (&function.name, function.component.display());
    match &function.build {
        Some(command) => anyhow::anyhow!("function `{name}`: `{command}` went well, but left no {component}"),
        None => anyhow::anyhow!("function `{name}`: there is no {component}, and no `build` command that makes it"),
    }
}

/// The distinct commands in the order of their first functions, each with all of its functions.
fn commands(functions: &[ManifestFunction]) -> Vec<(&str, Vec<&ManifestFunction>)> {
    let mut commands: Vec<(&str, Vec<&ManifestFunction>)> = Vec::new();
    for function in functions {
        let Some(command) = function.build.as_deref() else { continue };
        match commands.iter_mut().find(|(other, _)| *other == command) {
            Some((_, same)) => same.push(function),
            None => commands.push((command, vec![function])),
        }
    }
    commands
}

/// Whether a command needs Rust's component target: it names it, or leaves the choice to cargo's configuration.
fn wants_target(command: &str) -> bool {
    command.contains(TARGET) || (command.contains("cargo ") && !command.contains("--target"))
}

/// Adds the target if it is missing. The toolchain is the folder's own, which a `rust-toolchain.toml` may choose.
async fn ensure_target(folder: &Path, progress: &Progress) -> anyhow::Result<()> {
    if has_target(folder).await? {
        return Ok(());
    }
    let step = progress.step("rust", &format!("add the target {TARGET} with rustup"));
    let captured = run_captured(&format!("rustup target add {TARGET}"), folder, &step).await?;
    if !captured.status.success() {
        drop(step);
        progress.note(captured.output.trim_end());
        bail!("`rustup target add {TARGET}` ended with {}; its output stands above", captured.status);
    }
    step.done(&format!("added the target {TARGET}"));
    Ok(())
}

/// Whether the target is there. An error says what to install when nothing can add it.
pub(super) async fn has_target(folder: &Path) -> anyhow::Result<bool> {
    match asked("rustup", &["target", "list", "--installed"], folder).await {
        Ok(targets) => Ok(targets.lines().any(|line| line.trim() == TARGET)),
        // A Rust that came without rustup, from a distribution, may have the target's libraries all the same.
        Err(no_rustup) => match asked("rustc", &["--print", "target-libdir", "--target", TARGET], folder).await {
            Ok(libraries) if Path::new(libraries.trim()).is_dir() => Ok(true),
            Ok(_) => bail!(
                "Rust is here without its target {TARGET}, and {no_rustup}; install it, or rustup from https://rustup.rs"
            ),
            Err(no_rust) => bail!("{no_rust}; install Rust from https://rustup.rs, then `rustup target add {TARGET}`"),
        },
    }
}

/// What a program answers on stdout.
pub(super) async fn asked(program: &str, arguments: &[&str], folder: &Path) -> anyhow::Result<String> {
    let command = Command::new(program).args(arguments).current_dir(folder).stdin(Stdio::null()).output().await;
    let output = match command {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!("`{program}` is not installed"),
        output => output.with_context(|| format!("run `{program}`"))?,
    };
    if !output.status.success() {
        let said = output::plain(String::from_utf8_lossy(&output.stderr).trim());
        bail!("`{program} {}` ended with {}: {said}", arguments.join(" "), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use crate::catalog::SettingsSpec;

    use super::*;

    fn function(name: &str, build: Option<&str>) -> ManifestFunction {
        ManifestFunction {
            name: name.parse().unwrap(),
            component: PathBuf::from("missing.wasm"),
            build: build.map(str::to_owned),
            example: None,
            settings: SettingsSpec::default(),
            aliases: Vec::new(),
            source: None,
        }
    }

    fn manifest(functions: Vec<ManifestFunction>) -> Manifest {
        Manifest { path: PathBuf::from("dormouse.toml"), folder: std::env::temp_dir(), functions }
    }

    #[test]
    fn each_distinct_command_runs_once() {
        let functions = [
            function("a", Some("make x")),
            function("b", Some("make y")),
            function("c", Some("make x")),
            function("d", None),
        ];
        let shown: Vec<_> = commands(&functions)
            .into_iter()
            .map(|(command, functions)| (command, functions.iter().map(|one| one.name.to_string()).collect::<String>()))
            .collect();
        assert_eq!(shown, [("make x", "ac".to_owned()), ("make y", "b".to_owned())]);
    }

    #[test]
    fn only_cargo_and_the_target_itself_want_the_target() {
        assert!(wants_target("cargo build --release"));
        assert!(wants_target("cargo build --target wasm32-wasip2"));
        assert!(wants_target("rustc --target=wasm32-wasip2 x.rs"));
        assert!(!wants_target("cargo build --target wasm32-unknown-unknown"));
        assert!(!wants_target("componentize-py componentize app -o app.wasm"));
    }

    #[tokio::test]
    async fn a_failed_build_names_function_and_command() {
        let manifest = manifest(vec![function("hello", Some("echo oh; exit 3"))]);
        let error = build(&manifest, &Progress::new()).await.unwrap_err().to_string();
        assert!(error.contains("function `hello`: `echo oh; exit 3` ended with exit status: 3"), "{error}");
    }

    #[tokio::test]
    async fn a_build_without_its_component_is_a_failure() {
        let error = build(&manifest(vec![function("hello", Some("true"))]), &Progress::new()).await.unwrap_err();
        assert!(error.to_string().contains("`true` went well, but left no missing.wasm"), "{error}");
        let error = build(&manifest(vec![function("hello", None)]), &Progress::new()).await.unwrap_err();
        assert!(error.to_string().contains("no `build` command"), "{error}");
    }
}
