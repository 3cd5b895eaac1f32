//! Components of source code that was written for Function Compute's runtimes of Python and Node.js, without a change to it.
//!
//! The glue is in this binary, see `guest-sdk/function-compute`. Packages that the code names are installed beside a copy of
//! it, by pip and npm. Called by `build.rs`, for functions of an `s.yaml` and for those of a `dormouse.toml` with `source`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use ignore::WalkBuilder;
use include_dir::{Dir, include_dir};
use sha2::{Digest as _, Sha256};

use super::language::{JAVASCRIPT_SDK, WIT, embedded, missing_tool};
use super::progress::{Progress, Step};
use super::shell::{quoted, run_captured};

static PYTHON_GLUE: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../guest-sdk/function-compute/python");
static JAVASCRIPT_GLUE: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../guest-sdk/function-compute/javascript");

/// The packages that the glue for Node.js is built with, where they are installed.
const NODE_TOOLS: &str = r#"{"private": true, "dependencies": {"@jspm/core": "2.1.0", "componentize-qjs": "0.4.5",
    "core-js": "3.51.0", "esbuild": "0.28.2"}}"#;
/// Folders that are no part of the code, beside those that a `.fcignore` names.
const NOT_CODE: [&str; 7] = [".git", ".s", ".dormouse", ".dormouse-build", "__pycache__", "node_modules", ".venv"];
/// What a folder of code may have together; it becomes part of every instance's memory.
const CODE_BYTES_MAX: u64 = 256 << 20;

/// What the names of folders begin with in which something is built.
const WORK_PREFIX: &str = "build-";
/// No build takes that long.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);

/// Code and what runs it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Source {
    pub(super) runtime: Runtime,
    pub(super) folder: PathBuf,
    /// `index.handler`, and the hooks.
    pub(super) handlers: Vec<String>,
}

/// A language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runtime {
    Python,
    Nodejs,
}

impl Runtime {
    /// The runtime of this name: `python3.10`, `nodejs20`.
    pub(super) fn named(name: &str) -> Option<Runtime> {
        [("python", Runtime::Python), ("nodejs", Runtime::Nodejs)]
            .into_iter()
            .find(|(prefix, _)| name.starts_with(prefix))
            .map(|(_, runtime)| runtime)
    }
}

impl Source {
    /// Makes the component, unless it is there and was made of the same.
    pub(super) async fn build(&self, component: &Path, name: &str, progress: &Progress) -> anyhow::Result<()> {
        let files = self.files()?;
        let hash = self.hash(&files)?;
        let note = component.with_extension("sha256");
        if component.is_file() && fs::read_to_string(&note).is_ok_and(|known| known == hash) {
            return Ok(());
        }
        let names_a_function = |handler: &String| handler.contains('.') && !handler.contains("..");
        if let Some(handler) = self.handlers.iter().find(|handler| !names_a_function(handler)) {
            bail!(
                "function `{name}`: the handler `{handler}` must name a file in {} and a function in it, as `index.handler` does",
                self.folder.display()
            );
        }
        let folder = component.parent().context("the component has no folder")?;
        remove_abandoned(folder);
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        // Nothing in it is for a repository.
        fs::write(folder.join(".gitignore"), "*\n").with_context(|| format!("write to {}", folder.display()))?;
        let work =
            tempfile::Builder::new().prefix(WORK_PREFIX).tempdir_in(folder).context("make a folder to build in")?;
        let step = progress.step(name, &format!("build {}", self.folder.display()));
        let made = match self.runtime {
            Runtime::Python => self.python(&files, work.path(), &step).await,
            Runtime::Nodejs => self.nodejs(&files, (work.path(), folder), &step).await,
        };
        let (made, notes) = made.with_context(|| format!("function `{name}`"))?;
        fs::rename(&made, component).with_context(|| format!("write {}", component.display()))?;
        fs::write(&note, hash).with_context(|| format!("write {}", note.display()))?;
        step.done("built");
        notes.iter().for_each(|line| progress.note(&format!("{name}: {line}")));
        Ok(())
    }

    /// The files of the code, by their paths from its folder.
    fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let folder = &self.folder;
        if !folder.is_dir() {
            bail!("there is no folder {}, which should hold the function's code", folder.display());
        }
        let mut walk = WalkBuilder::new(folder);
        walk.standard_filters(false).follow_links(true).add_custom_ignore_filename(".fcignore");
        walk.filter_entry(|entry| !NOT_CODE.iter().any(|name| entry.file_name() == *name));
        let (mut files, mut bytes) = (Vec::new(), 0);
        for entry in walk.build() {
            let entry = entry.with_context(|| format!("read {}", folder.display()))?;
            if entry.path().is_file() {
                bytes += entry.metadata().map_or(0, |data| data.len());
                files.push(entry.path().strip_prefix(folder)?.to_owned());
            }
        }
        if bytes > CODE_BYTES_MAX {
            bail!("{} holds {bytes} bytes; at most {CODE_BYTES_MAX}. A `.fcignore` leaves files out", folder.display());
        }
        files.sort();
        Ok(files)
    }

    /// Names what a component is made of.
    fn hash(&self, files: &[PathBuf]) -> anyhow::Result<String> {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for glue in [&PYTHON_GLUE, &JAVASCRIPT_GLUE, &JAVASCRIPT_SDK, &WIT] {
            embedded(glue).iter().for_each(|(_, bytes)| add(bytes));
        }
        add(NODE_TOOLS.as_bytes());
        add(format!("{:?} {:?}", self.runtime, self.handlers).as_bytes());
        for file in files {
            add(file.as_os_str().as_encoded_bytes());
            add(&fs::read(self.folder.join(file)).with_context(|| format!("read {}", file.display()))?);
        }
        Ok(hex::encode(hash.finalize()))
    }

    fn copy(&self, files: &[PathBuf], to: &Path) -> anyhow::Result<()> {
        for file in files {
            let target = to.join(file);
            fs::create_dir_all(target.parent().unwrap_or(to))?;
            fs::copy(self.folder.join(file), &target).with_context(|| format!("copy {}", file.display()))?;
        }
        Ok(())
    }

    async fn python(&self, files: &[PathBuf], work: &Path, step: &Step) -> anyhow::Result<(PathBuf, Vec<String>)> {
        for handler in &self.handlers {
            let path = handler.rsplit_once('.').map(|(path, _)| path.replace('.', "/")).unwrap_or_default();
            let is_there = |file: String| files.iter().any(|known| known.as_os_str() == file.as_str());
            if path.is_empty() || !(is_there(format!("{path}.py")) || is_there(format!("{path}/__init__.py"))) {
                bail!("there is no {path}.py in {}, which the handler `{handler}` names", self.folder.display());
            }
        }
        let code = work.join("app/code");
        write_all(&PYTHON_GLUE, &work.join("app"))?;
        write_all(&WIT, &work.join("wit"))?;
        self.copy(files, &code)?;
        let mut notes = Vec::new();
        if files.iter().any(|file| file.as_os_str() == "requirements.txt") {
            let packages = work.join("packages");
            fs::create_dir_all(&packages)?;
            step.doing("install the packages of requirements.txt");
            let install = "python3 -m pip install --quiet --disable-pip-version-check --no-input --target ../../packages \
                           -r requirements.txt";
            run(install, &code, step).await?;
            notes.extend(native(&packages)?);
            let names: Vec<String> = fs::read_dir(&packages)?
                .flatten()
                .filter_map(|entry| entry.file_name().to_string_lossy().split('.').next().map(str::to_owned))
                .collect();
            for entry in fs::read_dir(&packages)?.flatten() {
                let to = code.join(entry.file_name());
                // The user's own comes first, as it does where both are in one folder.
                if !to.exists() {
                    fs::rename(entry.path(), to)?;
                }
            }
            fs::write(code.join(".dormouse-packages"), names.join("\n"))?;
        }
        step.doing("build with componentize-py");
        // What is installed on this machine is not the function's.
        fs::create_dir_all(work.join("none/lib"))?;
        let build = "VIRTUAL_ENV=\"$PWD/none\" componentize-py -q -d wit -d app/dormouse_fc/wit -w dormouse:python-fc/function \
                     componentize dormouse_fc.component -p app -o function.wasm";
        run(build, work, step).await?;
        Ok((work.join("function.wasm"), notes))
    }

    async fn nodejs(
        &self,
        files: &[PathBuf],
        (work, folder): (&Path, &Path),
        step: &Step,
    ) -> anyhow::Result<(PathBuf, Vec<String>)> {
        let tools = node_tools((work, folder), step).await?;
        symlink(tools.canonicalize()?.join("node_modules"), work.join("node_modules"))?;
        write_all(&JAVASCRIPT_SDK, &work.join("javascript"))?;
        write_all(&JAVASCRIPT_GLUE, &work.join("function-compute/javascript"))?;
        let code = work.join("code");
        self.copy(files, &code)?;
        if code.join("package.json").is_file() {
            step.doing("install the packages of package.json");
            run("npm install --omit=dev --ignore-scripts --loglevel=error --no-fund --no-audit", &code, step).await?;
        }
        step.doing("build with componentize-qjs");
        let handlers: Vec<String> = self.handlers.iter().map(|handler| format!("'{}'", quoted(handler))).collect();
        let bundle = format!("node function-compute/javascript/build.mjs code app.js {}", handlers.join(" "));
        let said = run(&bundle, work, step).await?;
        let build = "node_modules/.bin/componentize-qjs --wit javascript/wit --world function --module-root . --js app.js \
                     --output function.wasm";
        run(build, work, step).await?;
        Ok((work.join("function.wasm"), said.lines().map(str::to_owned).collect()))
    }
}

/// The folder of the tools for Node.js; installs them if it is not there. They are kept for all functions of a project.
async fn node_tools((work, folder): (&Path, &Path), step: &Step) -> anyhow::Result<PathBuf> {
    let tools = folder.join("node");
    let is_whole = || fs::read_to_string(tools.join("package.json")).is_ok_and(|known| known == NODE_TOOLS);
    if is_whole() {
        return Ok(tools);
    }
    step.doing("install the tools for Node.js");
    // Beside, so that a half of them is never taken for the whole.
    let beside = work.join("node");
    fs::create_dir_all(&beside)?;
    fs::write(beside.join("package.json"), NODE_TOOLS)?;
    run("npm install --loglevel=error --no-fund --no-audit", &beside, step).await?;
    let _ = fs::remove_dir_all(&tools);
    let moved = fs::rename(&beside, &tools);
    // Another build may have been faster.
    if !is_whole() {
        moved.context("keep the tools for Node.js")?;
    }
    Ok(tools)
}

/// Removes what builds that were killed have left.
fn remove_abandoned(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let changed = entry.metadata().and_then(|data| data.modified()).ok();
        let is_old = changed.and_then(|changed| changed.elapsed().ok()).is_some_and(|age| age > ABANDONED_AFTER);
        if is_old && entry.file_name().to_string_lossy().starts_with(WORK_PREFIX) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Runs a command; an error shows what it said.
async fn run(command: &str, folder: &Path, step: &Step) -> anyhow::Result<String> {
    if let Some((tool, remedy)) = missing_tool(command) {
        bail!("`{tool}` is not installed: {remedy}");
    }
    let captured = run_captured(command, folder, step).await.with_context(|| format!("run `{command}`"))?;
    if !captured.status.success() {
        let output = plain_output(&captured.output);
        let tool = command.split_whitespace().find(|word| !word.contains('=')).unwrap_or_default();
        bail!("{output}\n`{tool}` ended with {}", captured.status);
    }
    Ok(captured.output)
}

/// What a tool says, without the engine's own trace of how it came to say it.
fn plain_output(output: &str) -> String {
    let end = output.find("\n\nCaused by:").unwrap_or(output.len());
    let output = &output[..end];
    // What the glue has found wrong needs no trace of the glue.
    if let Some(at) = output.find("AssertionError: `") {
        return output[at + "AssertionError: ".len()..].trim_end().to_owned();
    }
    let lines = output.lines().filter(|line| !line.starts_with("warning: site-packages"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The packages that have machine code, as lines for people.
fn native(packages: &Path) -> anyhow::Result<Vec<String>> {
    let mut named: Vec<String> = Vec::new();
    for entry in WalkBuilder::new(packages).standard_filters(false).build() {
        let entry = entry?;
        let is_native = entry.path().extension().is_some_and(|ending| ending == "so" || ending == "pyd");
        let package = entry.path().strip_prefix(packages)?.components().next();
        if let (true, Some(package)) = (is_native, package) {
            let package = package.as_os_str().to_string_lossy();
            named.push(package.split('.').next().unwrap_or_default().to_owned());
        }
    }
    named.sort();
    named.dedup();
    let line = |name| format!("`{name}` has machine code, which a component cannot run; the rest of it is there");
    Ok(named.into_iter().map(line).collect())
}

fn write_all(from: &Dir<'static>, to: &Path) -> anyhow::Result<()> {
    for (path, bytes) in embedded(from) {
        if path.components().any(|part| part.as_os_str() == "__pycache__") {
            continue;
        }
        let target = to.join(path);
        fs::create_dir_all(target.parent().unwrap_or(to))?;
        fs::write(&target, bytes).with_context(|| format!("write {}", target.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_known_by_their_names() {
        assert_eq!(Runtime::named("python3.10"), Some(Runtime::Python));
        assert_eq!(Runtime::named("nodejs20"), Some(Runtime::Nodejs));
        assert_eq!(Runtime::named("custom.debian12"), None);
    }

    #[test]
    fn what_is_no_code_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["index.py", "data/a.txt", ".git/HEAD", "node_modules/x/index.js", "big.bin", ".env"] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        fs::write(folder.path().join(".fcignore"), "*.bin\n").unwrap();
        let source = Source { runtime: Runtime::Python, folder: folder.path().to_owned(), handlers: Vec::new() };
        let files: Vec<String> = source.files().unwrap().iter().map(|file| file.display().to_string()).collect();
        assert_eq!(files, [".env", ".fcignore", "data/a.txt", "index.py"]);
        let before = source.hash(&source.files().unwrap()).unwrap();
        fs::write(folder.path().join("index.py"), "y").unwrap();
        assert_ne!(source.hash(&source.files().unwrap()).unwrap(), before);
    }

    #[test]
    fn packages_with_machine_code_are_named() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["numpy/core/_x.cpython-311-x86_64-linux-gnu.so", "_yaml.cpython-311.so", "pure/a.py"] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let lines = native(folder.path()).unwrap().join("\n");
        assert!(
            lines.starts_with("`_yaml` has") && lines.contains("`numpy` has") && !lines.contains("pure"),
            "{lines}"
        );
    }
}
