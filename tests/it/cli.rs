//! The command line, as people and programs use it.

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::support::{TestHost, Up, dormouse, eventually, write_example, write_examples};

const COMMANDS: [&str; 30] = [
    "serve",
    "up",
    "new",
    "build",
    "deploy",
    "invoke",
    "invocations",
    "triggers",
    "list",
    "show",
    "logs",
    "usage",
    "publish",
    "versions",
    "alias",
    "rollback",
    "disable",
    "enable",
    "suspend",
    "resume",
    "stop",
    "delete",
    "login",
    "keys",
    "audit",
    "console",
    "top",
    "instances",
    "configure",
    "doctor",
];

/// The program as a client of `host`.
async fn run(host: &TestHost, arguments: &[&str]) -> Output {
    let mut command = dormouse();
    command.args(arguments).env("DORMOUSE_ADMIN", &host.admin).env("DORMOUSE_DATA", &host.data);
    command.output().await.expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a client command printed; it must have succeeded.
async fn printed(host: &TestHost, arguments: &[&str]) -> String {
    let output = run(host, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// What a client command said to standard error; it must have failed with status 1.
async fn complaint(host: &TestHost, arguments: &[&str]) -> String {
    let output = run(host, arguments).await;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

#[tokio::test]
async fn every_command_teaches_itself() {
    let help = text(&dormouse().arg("--help").output().await.unwrap().stdout);
    for command in COMMANDS {
        assert!(help.contains(&format!("  {command} ")), "{command} is not in --help");
        let own = dormouse().args([command, "--help"]).output().await.unwrap();
        assert!(own.status.success());
        assert!(text(&own.stdout).contains("Example"), "{command} --help has no example");
    }
}

#[tokio::test]
async fn up_serves_all_examples() {
    let state = tempfile::tempdir().unwrap();
    let project = tempfile::tempdir().unwrap();
    write_examples(project.path(), |manifest| manifest);
    let up = Up::start(project.path(), state.path(), &[]).await;
    let names: Vec<&str> = up.functions.iter().map(|function| function["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["background", "counter", "cpu", "graceful", "hello", "sleeper", "tracing"]);
    assert_eq!(up.invoke("hello", "world").await.text(), "Hello, world!\n");
    assert_eq!(up.invoke("cpu", "10").await.status, 200);
    let stopped = up.interrupt().await;
    assert_eq!(stopped, json!({"stopped": {"instances": 2, "preStops": 2, "unfinished": 0}}));
}

#[tokio::test]
async fn up_shows_a_timer_retries_and_a_destination() {
    let state = tempfile::tempdir().unwrap();
    let project = tempfile::tempdir().unwrap();
    write_example("examples/orders/dormouse.toml", project.path(), |manifest| manifest);
    let up = Up::start(project.path(), state.path(), &[]).await;
    let admin = up.addresses["admin"].as_str().expect("an address").to_owned();
    let list = async |function: &str| {
        let url = format!("http://{admin}/v1/functions/{function}/invocations");
        let reply = tests::client().get(url).send().await.unwrap().text().await.unwrap();
        serde_json::from_str::<Value>(&reply).unwrap()["invocations"].as_array().unwrap().clone()
    };
    let receipt = eventually("a receipt", async || {
        let receipts = list("receipts").await;
        receipts.into_iter().find(|one| one["state"] == "succeeded").ok_or_else(|| "none yet".to_owned())
    })
    .await;
    assert_eq!(receipt["chain"], json!(["orders"]));
    let orders = list("orders").await;
    let booked = orders.iter().find(|one| one["destination"]["invocation"] == receipt["id"]).unwrap();
    assert_eq!((&booked["state"], &booked["attempts"]), (&json!("succeeded"), &json!(2)), "{booked}");
    up.interrupt().await;
}

#[tokio::test]
async fn a_new_function_builds_anywhere_and_follows_its_sources() {
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("greeter");
    let made = dormouse().args(["new", "greeter"]).current_dir(folder.path()).output().await.unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let next = text(&made.stdout);
    assert!(next.find("rustup target add").unwrap() < next.find("dormouse up --watch").unwrap(), "{next}");
    let again = dormouse().args(["new", "greeter"]).current_dir(folder.path()).output().await.unwrap();
    assert_eq!(again.status.code(), Some(1), "a folder with files in it is left alone");

    let up = Up::start(&project, &folder.path().join("state"), &["--watch"]).await;
    assert_eq!(up.invoke("greeter", "Ada").await.text(), "Hello, Ada! You are number 1.\n");
    let source = project.join("src/lib.rs");
    let code = std::fs::read_to_string(&source).unwrap();
    std::fs::write(&source, code.replace("Hello, ", "Welcome, ")).unwrap();
    // Building takes longer than a state change: ask for as long as a build may take on a busy machine.
    for _ in 0..4 {
        if up.invoke("greeter", "Ada").await.text().starts_with("Welcome") {
            break;
        }
        let answer = async || {
            let text = up.invoke("greeter", "Ada").await.text();
            if text.starts_with("Welcome") { Ok(()) } else { Err(text) }
        };
        eventually("the new version being served", answer).await;
    }
    up.interrupt().await;
}

#[tokio::test]
async fn a_project_is_followed_although_its_first_build_fails() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("probe.src"), tests::component("guest-probe")).unwrap();
    let build =
        "[functions.probe]\ncomponent = \"probe.wasm\"\nbuild = \"test -e ready.txt && cp probe.src probe.wasm\"\n";
    std::fs::write(folder.path().join("dormouse.toml"), build).unwrap();
    let mut command = dormouse();
    command.args(["up", "--watch", "--json", "--data-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"]);
    // From elsewhere: the state is beside the manifest.
    command.arg(folder.path()).current_dir(std::env::temp_dir()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut up = command.spawn().unwrap();
    let mut said = BufReader::new(up.stderr.take().unwrap()).lines();
    while !said.next_line().await.unwrap().expect("it goes on").contains("the first change of a source begins again") {}
    std::fs::write(folder.path().join("ready.txt"), "yes").unwrap();
    let mut printed = BufReader::new(up.stdout.take().unwrap()).lines();
    let addresses: Value = serde_json::from_str(&printed.next_line().await.unwrap().unwrap()).unwrap();
    let ready: Value = serde_json::from_str(&printed.next_line().await.unwrap().expect("the functions")).unwrap();
    assert_eq!((&ready["ready"], &ready["functions"][0]["name"]), (&json!(true), &json!("probe")), "{addresses}");
    assert!(folder.path().join(".dormouse").is_dir());
    up.kill().await.unwrap();
}

#[tokio::test]
async fn client_commands_steer_a_host() {
    let host = TestHost::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("probe.wasm");
    std::fs::write(&file, tests::component("guest-probe")).unwrap();
    let file = file.to_str().unwrap();

    let deployed =
        printed(&host, &["deploy", "probe", file, "--set", "memory-mb=256", "--set", "freezeAfterMs=0"]).await;
    assert!(deployed.contains("revision 1"), "{deployed}"); // The first of this host.
    let shown: Value = serde_json::from_str(&printed(&host, &["show", "probe", "--json"]).await).unwrap();
    assert_eq!((&shown["memoryMb"], &shown["freezeAfterMs"]), (&json!(256), &json!(0)));
    let reply = printed(&host, &["invoke", "probe", r#"{"do": ["count", {"print": "a line"}]}"#]).await;
    assert_eq!(serde_json::from_str::<Value>(&reply).unwrap()["results"][0], 1);
    let probe = host.function("probe");
    let parked = probe.reaches("parked").await;

    assert!(printed(&host, &["list"]).await.contains("probe"));
    assert!(printed(&host, &["show", "probe"]).await.contains(parked[0]["id"].as_str().unwrap()));
    assert!(printed(&host, &["logs", "probe"]).await.contains("a line"));
    let usage = printed(&host, &["usage"]).await;
    assert!(usage.contains("REQUESTS") && usage.contains("PARKED") && usage.contains("CHARGED CU"), "{usage}");
    assert!(usage.contains("1 CU = 1 s at 1 GB"), "{usage}");
    let json: Value = serde_json::from_str(&printed(&host, &["usage", "--json"]).await).unwrap();
    assert_eq!(json["total"]["requests"], 1);

    printed(&host, &["suspend", "probe"]).await;
    let shown: Value = serde_json::from_str(&printed(&host, &["show", "probe", "--json"]).await).unwrap();
    assert_eq!(shown["suspended"], true);
    printed(&host, &["resume", "probe"]).await;
    printed(&host, &["stop", parked[0]["id"].as_str().unwrap()]).await;
    probe.is_gone().await;
    printed(&host, &["delete", "probe", "--yes"]).await;
    assert_eq!(probe.invoke("x").await.status, 404);
}

#[tokio::test]
async fn versions_and_aliases_are_steered_from_the_command_line() {
    let host = TestHost::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("probe.wasm"), tests::component("guest-probe")).unwrap();
    let manifest = |memory_mb: u32, aliases: &str| {
        let text = format!("[functions.probe]\ncomponent = \"probe.wasm\"\nmemory-mb = {memory_mb}\n{aliases}");
        std::fs::write(folder.path().join("dormouse.toml"), text).unwrap();
    };
    let project = folder.path().to_str().unwrap();
    manifest(128, "");
    assert!(printed(&host, &["deploy", project, "--data", &host.data]).await.contains("probe: revision"));
    assert!(printed(&host, &["versions", "probe"]).await.contains("no versions yet"));
    assert_eq!(
        printed(&host, &["publish", "probe", "--description", "one"]).await.trim(),
        "published version 1 of probe"
    );
    let again = complaint(&host, &["publish", "probe"]).await;
    assert!(again.contains("published already, as version 1"), "{again}");
    manifest(128, "aliases.prod = { version = \"1\" }\naliases.next = {}");
    printed(&host, &["deploy", project]).await;
    let listed = printed(&host, &["alias", "list", "probe"]).await;
    assert!(listed.contains("prod") && listed.contains("next"), "{listed}");
    let shown: Value = serde_json::from_str(&printed(&host, &["alias", "list", "probe", "--json"]).await).unwrap();
    let versions: Vec<&Value> = shown["aliases"].as_array().unwrap().iter().map(|alias| &alias["version"]).collect();
    assert_eq!(versions, ["2", "1"], "`next` names what was deployed, published for it: {shown}");

    let moved = printed(&host, &["alias", "set", "probe", "prod", "2", "--weight", "1=0.07"]).await;
    assert_eq!(moved.trim(), "prod of probe: version 2, and 7 % to version 1");
    let wrong = complaint(&host, &["alias", "set", "probe", "prod", "2", "--weight", "1=2"]).await;
    assert!(wrong.contains("0 to 1"), "{wrong}");
    assert_eq!(printed(&host, &["rollback", "probe", "prod"]).await.trim(), "prod of probe: version 1");
    let versions = printed(&host, &["versions", "probe"]).await;
    assert!(versions.contains("one") && versions.contains("next"), "{versions}");
    let in_use = complaint(&host, &["versions", "probe", "--delete", "1"]).await;
    assert!(in_use.contains("alias `prod`"), "{in_use}");
    printed(&host, &["alias", "delete", "probe", "prod"]).await;
    printed(&host, &["versions", "probe", "--delete", "1"]).await;

    printed(&host, &["disable", "probe", "--reason", "moving"]).await;
    assert!(printed(&host, &["list"]).await.contains("DISABLED"));
    assert!(printed(&host, &["show", "probe"]).await.contains("disabled: moving"));
    assert!(complaint(&host, &["invoke", "probe", "{}"]).await.contains("moving"));
    printed(&host, &["enable", "probe"]).await;
}

#[tokio::test]
async fn the_data_address_is_that_of_the_host_that_was_asked() {
    let host = TestHost::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hello.wasm");
    std::fs::write(&file, tests::component("example-hello")).unwrap();
    let asked = async |arguments: &[&str]| {
        let output = dormouse().args(arguments).args(["--admin", &host.admin]).output().await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let deployed = asked(&["deploy", "hello", file.to_str().unwrap()]).await;
    assert!(deployed.contains(&format!("{}/invoke/hello", host.data)), "{deployed}");
    assert!(asked(&["show", "hello"]).await.contains(&host.data));
    assert_eq!(asked(&["invoke", "hello", "you"]).await, "Hello, you!\n");
}

#[tokio::test]
async fn errors_say_what_was_wrong_and_what_would_be_right() {
    let host = TestHost::start().await;
    let missing = complaint(&host, &["invoke", "nobody", "x"]).await;
    assert!(missing.contains("there is no function `nobody`"), "{missing}");
    let wrong = complaint(&host, &["deploy", "f", file!()]).await;
    assert!(wrong.contains("error: failed to deploy"), "{wrong}");
    // Nothing listens on port 1 of any machine that tests run on.
    let gone = dormouse().args(["list", "--admin", "http://127.0.0.1:1"]).output().await.unwrap();
    let gone = text(&gone.stderr);
    assert!(gone.contains("127.0.0.1:1") && gone.contains("dormouse serve"), "{gone}");
}

#[tokio::test]
async fn all_faults_of_a_manifest_are_reported_together() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = "[functions.a]\ncomponent = \"a.wasm\"\nmemory-mb = 1\n[functions.b]\nmemmory-mb = 64\n[host]\n";
    std::fs::write(folder.path().join("dormouse.toml"), manifest).unwrap();
    let output = dormouse().arg("up").arg(folder.path()).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    for fault in ["`memory-mb` is 1", "`memmory-mb`", "`component` is missing", "`host`"] {
        assert!(said.contains(fault), "{fault} is not in {said}");
    }
}

#[tokio::test]
async fn lines_of_one_request_instances_and_figures_for_spreadsheets_are_printed() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({})).await;
    let first = probe.script(json!([{"print": "first"}])).await;
    probe.script(json!([{"print": "second"}])).await;
    let id = first.header("dormouse-request-id");
    let lines = printed(&host, &["logs", "probe", "--request", id]).await;
    assert!(lines.contains("first") && !lines.contains("second") && lines.lines().count() == 1, "{lines}");
    let none = run(&host, &["logs", "probe", "--request", "another"]).await;
    assert!(text(&none.stderr).contains("has no such lines in its log"), "{none:?}");
    let instances = printed(&host, &["instances"]).await;
    assert!(
        instances.contains("FUNCTION") && instances.contains("probe") && instances.contains("parked"),
        "{instances}"
    );
    assert_eq!(printed(&host, &["instances", "probe"]).await, instances);
    let top = printed(&host, &["top", "--once", "--every", "200ms"]).await;
    assert!(top.contains("1 function,") && top.contains("probe") && top.contains("1 parked"), "{top}");
    let hasty = run(&host, &["top", "--every", "1ms"]).await;
    assert!(text(&hasty.stderr).contains("at least 100ms"), "{hasty:?}");
    let usage = printed(&host, &["usage", "--csv"]).await;
    let rows: Vec<Vec<&str>> = usage.lines().map(|line| line.split(',').collect()).collect();
    let at = |name: &str| rows[0].iter().position(|column| *column == name).unwrap();
    assert_eq!((rows.len(), rows[1][at("key")], rows[1][at("requests")]), (2, "probe", "2"), "{usage}");
    let windows = printed(&host, &["usage", "--csv", "--windows"]).await;
    assert!(windows.lines().next().unwrap().contains("epochs") && windows.lines().count() > 1, "{windows}");
}

#[tokio::test]
async fn up_shows_what_functions_print_and_how_they_crash() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("probe.wasm"), tests::component("guest-probe")).unwrap();
    let manifest = "[functions.probe]\ncomponent = \"probe.wasm\"\n";
    std::fs::write(folder.path().join("dormouse.toml"), manifest).unwrap();
    for (flags, is_shown) in [(&[][..], true), (&["--quiet"][..], false)] {
        let state = folder.path().join(format!("state-{is_shown}"));
        let mut command = dormouse();
        command.args(["up", "--data-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--state-dir"]).arg(&state);
        command.arg(folder.path()).args(flags).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = loop {
            let line = stdout.next_line().await.unwrap().expect("a table of functions");
            if let Some(at) = line.find("http://").filter(|_| line.contains("probe")) {
                break line[at..].trim().to_owned();
            }
        };
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let call = async |script: Value| {
            tests::client().post(&url).body(json!({"do": script}).to_string()).send().await.unwrap().status()
        };
        // A moment passes until the log is followed; what is written before is not shown.
        let mut said = String::new();
        if is_shown {
            let shown = async {
                while !said.contains("probe | hello \\u{1b}[31m") {
                    call(json!([{"print": "hello \u{1b}[31m"}])).await;
                    said += &format!("{}\n", stderr.next_line().await.unwrap().expect("it goes on"));
                }
                call(json!(["trap"])).await;
                while !said.contains("probe ! instance crashed") {
                    said += &format!("{}\n", stderr.next_line().await.unwrap().expect("it goes on"));
                }
            };
            tokio::time::timeout(Duration::from_secs(60), shown).await.expect("what functions print is shown");
        } else {
            call(json!([{"print": "hello"}])).await;
        }
        let pid = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert!(child.wait().await.unwrap().success());
        while let Some(line) = stderr.next_line().await.unwrap() {
            said += &format!("{line}\n");
        }
        assert_eq!(said.contains("probe | "), is_shown, "{said}");
    }
}
