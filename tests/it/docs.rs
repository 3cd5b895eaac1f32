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
    let (text, programs) = (std::fs::read_to_string(page).unwrap(), programs());
    let own = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{own}", programs.path().display());
    let commands = commands(&text);
    assert!(!commands.is_empty(), "{} has no command", page.display());
    for (command, expected) in commands {
        // The page's addresses are the default ones; this host has ports of the system's choice.
        let here = command.replace("http://127.0.0.1:8080", &host.data).replace("http://127.0.0.1:8081", &host.admin);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(here).env("PATH", &path).env("DORMOUSE_ADMIN", &host.admin).env_remove("RUST_BACKTRACE");
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
async fn the_pages_about_asynchronous_invocation_and_triggers_print_what_they_say() {
    let host = TestHost::start().await;
    host.deploy("hello", "example-hello", json!({})).await;
    for page in ["asynchronous.md", "triggers.md"] {
        run(&tests::repository().join("host/docs").join(page), &host).await;
    }
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
