//! The documentation pages: their commands are run, in their order, and print what the page says.

use std::path::Path;

use serde_json::json;
use tokio::process::Command;

use crate::support::TestHost;

/// A folder in which `dormouse` is the program under test, to be put in front of `PATH`.
fn programs() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_host-under-test"), folder.path().join("dormouse")).unwrap();
    folder
}

/// The commands of a page's `console` blocks, each with what it shall print.
fn commands(page: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for block in page.split("```console\n").skip(1) {
        for line in block.split("```").next().expect("a block ends").lines() {
            match (line.strip_prefix("$ "), found.last_mut()) {
                (Some(command), _) => found.push((command.to_owned(), String::new())),
                (None, Some((_, output))) => output.push_str(&format!("{line}\n")),
                (None, None) => panic!("output without a command: {line}"),
            }
        }
    }
    found
}

/// Runs a page's commands against `host`, in a shell.
async fn run(page: &Path, host: &TestHost) {
    run_in(Path::new("."), page, host).await;
}

/// The same, in a folder that has what the page takes for granted.
async fn run_in(folder: &Path, page: &Path, host: &TestHost) {
    let (text, programs) = (std::fs::read_to_string(page).unwrap(), programs());
    let path = format!("{}:{}", programs.path().display(), tests::languages::path().to_string_lossy());
    let commands = commands(&text);
    assert!(!commands.is_empty(), "{} has no command", page.display());
    for (command, expected) in commands {
        // The page's addresses are the default ones; this host has ports of the system's choice.
        let here = command.replace("http://127.0.0.1:8080", &host.data).replace("http://127.0.0.1:8081", &host.admin);
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(here)
            .current_dir(folder)
            .env("PATH", &path)
            .env("DORMOUSE_ADMIN", &host.admin)
            .env_remove("RUST_BACKTRACE");
        let output = shell.output().await.unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(printed.trim_end(), expected.trim_end(), "{}: {command}: {errors}", page.display());
    }
}

#[tokio::test]
async fn the_page_about_versions_prints_what_it_says() {
    let host = TestHost::start().await;
    host.deploy("hello", "example-hello", json!({})).await;
    // The page shows a canary of a second version, which a reader has published by then.
    let page = tests::repository().join("host/docs/versions.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let (before, after) = text.split_at(text.find("## Canaries").expect("the part about canaries"));
    let folder = tempfile::tempdir().unwrap();
    let parts = ["before.md", "after.md"].map(|name| folder.path().join(name));
    std::fs::write(&parts[0], before).unwrap();
    std::fs::write(&parts[1], after).unwrap();
    run(&parts[0], &host).await;
    host.deploy("hello", "example-hello", json!({"memoryMb": 64})).await;
    assert_eq!(host.post("/v1/functions/hello/versions").await.status, 201);
    run(&parts[1], &host).await;
}

#[tokio::test]
async fn the_page_about_keys_prints_what_it_says() {
    let host = TestHost::start().await;
    host.deploy("cart", "example-hello", json!({})).await;
    run(&tests::repository().join("host/docs/keys.md"), &host).await;
}

#[tokio::test]
async fn the_page_about_the_console_prints_what_it_says() {
    let (host, folder) = (TestHost::start().await, tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("hello.wasm"), tests::component("example-hello")).unwrap();
    run_in(folder.path(), &tests::repository().join("host/docs/console.md"), &host).await;
}

#[tokio::test]
async fn the_page_about_logs_prints_what_it_says() {
    let (host, folder) = (TestHost::start().await, tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("shop.wasm"), tests::component("guest-probe")).unwrap();
    run_in(folder.path(), &tests::repository().join("host/docs/logs.md"), &host).await;
}

#[tokio::test]
async fn the_pages_about_asynchronous_invocation_and_triggers_print_what_they_say() {
    let host = TestHost::start().await;
    host.deploy("hello", "example-hello", json!({})).await;
    for page in ["asynchronous.md", "triggers.md"] {
        run(&tests::repository().join("host/docs").join(page), &host).await;
    }
}

/// The page has commands, then a program, then commands that see what the program did.
#[tokio::test]
async fn the_page_about_function_compute_does_what_it_says() {
    let host = TestHost::start().await;
    let text = std::fs::read_to_string(tests::repository().join("host/docs/function-compute.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hello.wasm"), tests::component("example-hello")).unwrap();
    let (before, rest) = text.split_once("```python\n").expect("a program");
    let (program, after) = rest.split_once("```").expect("its end");
    let parts = [("before.md", before), ("after.md", after)].map(|(name, part)| {
        let path = folder.path().join(name);
        std::fs::write(&path, part).unwrap();
        path
    });
    run_in(folder.path(), &parts[0], &host).await;
    let endpoint = host.admin.strip_prefix("http://").unwrap();
    std::fs::write(folder.path().join("program.py"), program.replace("127.0.0.1:8081", endpoint)).unwrap();
    let mut python = Command::new(super::function_compute::python());
    let output =
        python.arg("program.py").current_dir(folder.path()).env("NO_PROXY", "127.0.0.1").output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), "Hello, world!", "{output:?}");
    run_in(folder.path(), &parts[1], &host).await;
}

#[tokio::test]
async fn the_page_about_serverless_devs_does_what_it_says() {
    let (host, folder) = (TestHost::start().await, tempfile::tempdir().unwrap());
    let example = "examples/function-compute-nodejs";
    for file in ["s.yaml", "code/index.js"] {
        let (from, to) = (tests::repository().join(example).join(file), folder.path().join(example).join(file));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    }
    run_in(folder.path(), &tests::repository().join("host/docs/serverless-devs.md"), &host).await;
}

#[test]
fn every_page_is_reached_from_the_readme_and_every_link_leads_somewhere() {
    let docs = tests::repository().join("host/docs");
    let readme = std::fs::read_to_string(tests::repository().join("README.md")).unwrap();
    for page in std::fs::read_dir(&docs).unwrap().flatten() {
        let name = page.file_name().to_string_lossy().into_owned();
        assert!(readme.contains(&format!("(host/docs/{name})")), "the README does not link host/docs/{name}");
        let text = std::fs::read_to_string(page.path()).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().expect("a link ends")) {
            let file = link.split('#').next().expect("a file");
            assert!(link.starts_with("http") || docs.join(file).exists(), "{name}: {link}");
        }
    }
}
