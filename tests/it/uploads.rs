//! What may be deployed: components that fit the contract. Everything else is refused with a reason that helps, and
//! what was there before keeps serving.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use futures::stream;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::support::{Caller, PATIENCE, Reply, TestFunction, TestHost};
use tests::text::{self, Small};

const PROBE: &str = "guest-probe";
const CODE_REFUSED: &str = "component-refused";

/// The contract's handler, as messages write it.
const HANDLER: &str = "async func(ctx: record { request-id: string, function: string, version: string, \
                       instance-id: string, memory-mb: u32, deadline-ms: u64, attempt: u32, \
                       traceparent: option<string> }, event: list<u8>) -> result<list<u8>, string>";

#[tokio::test]
async fn bytes_that_are_no_component_are_refused_and_the_old_code_goes_on() {
    let host = TestHost::start().await;
    let counter = host.deploy("counter", PROBE, json!({})).await;
    let before = show(&host, "counter").await;
    let compiled = std::fs::read(&files(&host, "compiled")[0]).unwrap();
    let noise: Vec<u8> = (1..5000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let old_version = [b"\0asm".as_slice(), &[0x0c, 0, 1, 0]].concat();
    let cases: [(&str, Vec<u8>, &[&str]); 6] = [
        ("an empty body", Vec::new(), &["not a WebAssembly file", "nothing (it is empty)"]),
        ("noise", noise, &["not a WebAssembly file", "00 61 73 6d"]),
        ("text", b"(component)".to_vec(), &["not a WebAssembly file", "28 63 6f 6d"]),
        ("a core module", text::component("(module)"), &["a core module, not a component", "`wasm32-wasip2`"]),
        ("an unknown version", old_version, &["unknown version", "00 61 73 6d 0c 00 01 00"]),
        ("the host's own machine code", compiled, &["not a WebAssembly file", "7f 45 4c 46"]),
    ];
    for (index, (what, bytes, words)) in cases.into_iter().enumerate() {
        let refused = host.put_code("counter", bytes.clone(), &json!({})).await;
        assert_words(what, &refused.problem(422, CODE_REFUSED), words);
        host.put_code("fresh", bytes, &json!({})).await.problem(422, CODE_REFUSED);
        assert_eq!(host.get("/v1/functions/fresh").await.status, 404, "{what} became a function");
        let count = counter.script(json!(["count"])).await.results();
        assert_eq!(count, json!([index + 1]), "{what} disturbed the instance");
    }
    assert_eq!(unchanging(show(&host, "counter").await), unchanging(before));
}

#[tokio::test]
async fn a_component_that_was_cut_off_is_refused_wherever_the_cut_is() {
    let host = TestHost::start().await;
    let whole = tests::component(PROBE);
    let length = whole.len();
    for end in [4, 7, 8, 9, 100, length / 4, length / 2, length - 1000, length - 1] {
        let refused = host.put_code("cut", whole[..end].to_vec(), &json!({})).await;
        let detail = refused.problem(422, CODE_REFUSED);
        let words = ["not a valid component", "unknown version", "exports no `handler`"];
        assert!(words.iter().any(|word| detail.contains(word)), "{end} of {length} bytes: {detail}");
    }
    assert_eq!(host.get("/v1/functions/cut").await.status, 404);
    assert_no_files(&host);
}

#[tokio::test]
async fn a_component_of_another_shape_is_told_what_was_found_and_what_is_wanted() {
    let host = TestHost::start().await;
    let counter = host.deploy("counter", PROBE, json!({})).await;
    let cases: [(&str, Vec<u8>, Value, &[&str]); 8] = [
        ("nothing exported", text::component("(component)"), json!({}), &["exports no `handler`", "exports nothing"]),
        ("another export", exporting("run"), json!({}), &["exports no `handler`", "it exports func `run`"]),
        ("other parameters", exporting("handler"), json!({}), &["`handler`", "wrong shape", "`func(x: u32)`", HANDLER]),
        (
            "an interface",
            text::component(r#"(component (instance $empty) (export "handler" (instance $empty)))"#),
            json!({}),
            &["`handler`", "wrong shape", "instance", HANDLER],
        ),
        (
            "an unknown import",
            Small { imports: VAULT, ..Small::PLAIN }.component(),
            json!({}),
            &["imports what this host does not offer", "acme:secrets/vault@1.0.0"],
        ),
        (
            "an import of an unknown version",
            Small { imports: LATER, ..Small::PLAIN }.component(),
            json!({}),
            &["`wasi:http/outgoing-handler@1.0.0`", "nearest", "`wasi:http/outgoing-handler@0.2`"],
        ),
        (
            "a hook that is not there",
            Small::PLAIN.component(),
            json!({"lifecycle": {"preStop": {"handler": "index.sayGoodbye"}}}),
            &["exports no `say-goodbye`", "configured as pre-stop", "func `handler`"],
        ),
        (
            "a hook of another shape",
            Small::PLAIN.component(),
            json!({"lifecycle": {"preFreeze": {"handler": "handler"}}}),
            &["`handler`", "wrong shape", "event: list<u8>", "(with or without `async`)"],
        ),
    ];
    for (index, (what, bytes, settings, words)) in cases.into_iter().enumerate() {
        let refused = host.put_code("counter", bytes, &settings).await;
        assert_words(what, &refused.problem(422, CODE_REFUSED), words);
        assert_eq!(counter.script(json!(["count"])).await.results(), json!([index + 1]), "{what}");
    }
    assert_eq!(files(&host, "components").len(), 1, "nothing of what was refused is kept");
    assert_eq!(files(&host, "compiled").len(), 1);
}

#[tokio::test]
async fn an_upload_beyond_all_bounds_is_refused_and_not_held_in_memory() {
    let host = TestHost::start().await;
    let counter = host.deploy("counter", PROBE, json!({})).await;
    let before_kb = memory_kb(&host, "VmHWM");
    let zeros = stream::iter((0..200).map(|_| Ok::<_, Infallible>(vec![0_u8; 1 << 20])));
    let url = format!("{}/v1/functions/counter/code", host.admin);
    let request = host.client.put(url).body(reqwest::Body::wrap_stream(zeros));
    let refused = Reply::of(request.send().await.expect("an answer, not a broken connection")).await;
    let detail = refused.problem(413, "component-too-large");
    assert!(detail.contains("104857600 bytes"), "{detail}");
    let grown_mb = (memory_kb(&host, "VmHWM") - before_kb) / 1024;
    assert!(grown_mb < 250, "the host grew by {grown_mb} MB");
    assert_eq!(counter.script(json!(["count"])).await.results(), json!([1]));
}

#[tokio::test]
async fn uploads_together_wait_for_memory_before_they_are_read() {
    let host =
        TestHost::builder().flag("--component-bytes-max=1048576").flag("--uploads-memory-max-mb=1").start().await;
    let head = |name: &str| {
        format!(
            "PUT /v1/functions/{name}/code HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
             Content-Length: 1000000\r\n\r\n"
        )
    };
    let mut first = Caller::connect(&host.admin).await;
    first.write(head("first")).await;
    first.read_to("100 Continue").await;
    let mut second = Caller::connect(&host.admin).await;
    second.write(head("second")).await;
    let small = host.put_code("small", Small::PLAIN.component(), &json!({})).await;
    assert_eq!(small.status, 201, "small ones need no place");
    let asked = timeout(Duration::from_millis(200), second.read_to("100 Continue")).await;
    assert!(asked.is_err(), "there is memory for one only");
    drop(first);
    second.read_to("100 Continue").await;
    host.signal(Signal::TERM);
    drop(second);
    assert!(host.ended().await.0.success());
}

#[tokio::test]
async fn the_bound_of_uploads_can_be_configured() {
    let small = Small::PLAIN.component();
    let host = TestHost::builder().flag(&format!("--component-bytes-max={}", small.len())).start().await;
    assert_eq!(host.put_code("small", small.clone(), &json!({})).await.status, 201);
    let mut longer = small;
    longer.push(0);
    host.put_code("small", longer, &json!({})).await.problem(413, "component-too-large");
}

#[tokio::test]
async fn an_upload_that_ends_early_changes_nothing() {
    let host = TestHost::start().await;
    let small = deploy_small(&host, "small").await;
    let before = show(&host, "small").await;
    let address = host.admin.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("PUT /v1/functions/small/code HTTP/1.1\r\nhost: {address}\r\ncontent-length: 100000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&tests::component(PROBE)[..5000]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(show(&host, "small").await, before);
    assert_eq!(small.invoke("").await.status, 200);
}

#[tokio::test]
async fn functions_of_the_same_component_share_its_compiled_code_until_the_last_is_gone() {
    let host = TestHost::start().await;
    let one = host.deploy("one", PROBE, json!({})).await;
    let compiled = files(&host, "compiled");
    let written = std::fs::metadata(&compiled[0]).unwrap().modified().unwrap();
    let two = host.deploy("two", PROBE, json!({"memoryMb": 256})).await;
    assert_eq!(files(&host, "compiled"), compiled);
    assert_eq!(std::fs::metadata(&compiled[0]).unwrap().modified().unwrap(), written, "it was compiled once");
    assert_eq!(files(&host, "components").len(), 1);
    assert_eq!(one.script(json!(["count"])).await.results(), json!([1]));

    assert_eq!(one.delete().await.status, 204);
    assert_eq!(files(&host, "compiled"), compiled);
    assert_eq!(two.script(json!(["count"])).await.results(), json!([1]), "each has instances of its own");
    assert_eq!(two.delete().await.status, 204);
    assert_no_files(&host);
}

#[tokio::test]
async fn code_that_was_replaced_is_removed() {
    let host = TestHost::start().await;
    host.deploy("small", PROBE, json!({})).await;
    let (components, compiled) = (files(&host, "components"), files(&host, "compiled"));
    let small = deploy_small(&host, "small").await;
    assert_eq!(small.invoke("").await.body, [0; 8], "the new code answers");
    for (folder, before) in [("components", components), ("compiled", compiled)] {
        let after = files(&host, folder);
        assert_eq!(after.len(), before.len());
        assert!(after.iter().all(|path| !before.contains(path)), "{after:?}");
    }
}

#[tokio::test]
async fn code_and_settings_change_in_one_step_or_not_at_all() {
    let host = TestHost::start().await;
    let function = host.deploy("f", PROBE, json!({"memoryMb": 256, "environment": {"A": "1"}})).await;
    let told = function.script(json!(["context", "env"])).await.results();
    assert_eq!((&told[0]["memoryMb"], &told[1]), (&json!(256), &json!({"A": "1"})));
    let before = show(&host, "f").await;

    let refused = host.put_code("f", Small::PLAIN.component(), &json!({"memoryMb": 1})).await;
    assert_words("bad settings", &refused.problem(422, "settings-refused"), &["`memoryMb` is 1"]);
    let url = format!("{}/v1/functions/f/code", host.admin);
    let request = host.client.put(url).header("Dormouse-Settings", "{not json").body(Small::PLAIN.component());
    Reply::of(request.send().await.unwrap()).await.problem(400, "invalid-request");
    assert_eq!(unchanging(show(&host, "f").await), unchanging(before.clone()));
    assert_eq!(files(&host, "compiled").len(), 1, "what came with bad settings is not kept");

    let patch = json!({"memoryMb": 512, "environment": {"A": null}});
    let replaced = host.put_code("f", Small::PLAIN.component(), &patch).await;
    assert_eq!(replaced.status, 200, "{replaced:?}");
    let after = replaced.json();
    assert_eq!((&after["memoryMb"], &after["environment"]), (&json!(512), &json!({})));
    assert_eq!(after["revision"].as_u64(), before["revision"].as_u64().map(|revision| revision + 1));
    assert_eq!(function.invoke("").await.body, [0; 8]);
}

#[tokio::test]
async fn damaged_compiled_code_is_made_again_at_the_next_start() {
    let mut host = TestHost::start().await;
    deploy_small(&host, "small").await;
    let path = files(&host, "compiled").remove(0);
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let damaged = [Vec::new(), b"nonsense".to_vec(), whole[..whole.len() / 2].to_vec(), flipped];
    for bytes in damaged {
        host.signal(Signal::TERM);
        let same = host.same();
        assert!(host.ended().await.0.success());
        std::fs::write(&path, &bytes).unwrap();
        host = same.start().await;
        let reply = host.function("small").invoke("").await;
        assert_eq!(reply.body, [0; 8], "with {} bytes of code: {reply:?}", bytes.len());
        assert_ne!(std::fs::read(&path).unwrap(), bytes, "the file is whole again");
    }
    host.signal(Signal::TERM);
    let same = host.same();
    assert!(host.ended().await.0.success());
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    let host = same.start().await;
    assert_eq!(host.function("small").invoke("").await.body, [0; 8], "all compiled code may be lost");
}

#[tokio::test]
async fn a_state_directory_that_is_in_use_is_refused() {
    let host = TestHost::start().await;
    let small = deploy_small(&host, "small").await;
    let second = timeout(PATIENCE, host.same().command().output()).await.expect("it ends at once").unwrap();
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success());
    assert!(second.stdout.is_empty(), "it never listened");
    assert_words("a second host", &text, &["another host uses it", "--state-dir", host.state_dir().to_str().unwrap()]);
    assert_eq!(small.invoke("").await.status, 200, "the first one does not notice");
}

/// Component level: imports that this host does not have.
const LATER: &str = r#"
    (import "wasi:http/outgoing-handler@1.0.0" (instance $later (export "handle" (func (result s64)))))
    (core func $lowered (canon lower (func $later "handle")))"#;
const VAULT: &str = r#"
    (import "acme:secrets/vault@1.0.0" (instance $vault (export "open" (func (result s64)))))
    (core func $lowered (canon lower (func $vault "open")))"#;

/// A component that exports a function of one number.
fn exporting(name: &str) -> Vec<u8> {
    text::component(&format!(
        r#"(component
            (core module $code (func (export "run") (param i32)))
            (core instance $core (instantiate $code))
            (func (export "{name}") (param "x" u32) (canon lift (core func $core "run"))))"#
    ))
}

async fn deploy_small(host: &TestHost, name: &str) -> TestFunction {
    let reply = host.put_code(name, Small::PLAIN.component(), &json!({})).await;
    assert!(matches!(reply.status, 200 | 201), "{reply:?}");
    host.function(name)
}

async fn show(host: &TestHost, name: &str) -> Value {
    let reply = host.get(&format!("/v1/functions/{name}")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

/// What a refused change must leave as it is: all but the instances' states, which change by themselves.
fn unchanging(mut function: Value) -> Value {
    function.as_object_mut().expect("a function").remove("instances");
    function
}

/// All files below a folder of the state directory.
fn files(host: &TestHost, folder: &str) -> Vec<PathBuf> {
    let mut folders = vec![host.state_dir().join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder is there").flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn assert_no_files(host: &TestHost) {
    assert_eq!(files(host, "components"), Vec::<PathBuf>::new());
    assert_eq!(files(host, "compiled"), Vec::<PathBuf>::new());
}

fn assert_words(what: &str, text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{what}: no {word:?} in {text:?}");
    }
}

/// A figure of `/proc/PID/status`, in KB.
fn memory_kb(host: &TestHost, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).expect("the host runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("the figure is there");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
