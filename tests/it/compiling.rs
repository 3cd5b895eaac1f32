//! Compiling uploads: what it may take, who waits for whom, and that it ends with whoever wanted it.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::time::sleep;

use crate::support::{Caller, TestHost, eventually};
use tests::text::{self, Small};

/// A component of some kilobytes that takes minutes to compile: `loops` loops within each other that all change `locals`
/// variables, each of which the compiler has to follow through every loop.
fn costly(loops: usize, locals: usize) -> Vec<u8> {
    let body: String =
        (0..locals).map(|at| format!("(local.set {at} (i64.add (local.get {at}) (i64.const 1)))")).collect();
    let (begin, end) = ("(loop (br_if 0 (i32.wrap_i64 (local.get 0)))".repeat(loops), ")".repeat(loops));
    text::component(&format!(
        "(component (core module (func (export \"f\") (local {}) {begin}{body}{end})))",
        "i64 ".repeat(locals)
    ))
}

fn endless() -> Vec<u8> {
    costly(3000, 3000)
}

/// The same as a large component, by bytes that nobody compiles.
fn large(mut component: Vec<u8>) -> Vec<u8> {
    let name_and_bytes = [&[1, b'x'][..], &vec![0; 2 << 20]].concat();
    component.push(0); // A custom section.
    let mut length = name_and_bytes.len();
    while length > 0x7f {
        component.push(length as u8 | 0x80);
        length >>= 7;
    }
    component.push(length as u8);
    component.extend(name_and_bytes);
    component
}

/// Processes that compile for the host.
fn compilers(host: u32) -> Vec<u32> {
    let stat = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let parent = |pid: u32| stat(pid)?.rsplit(')').next()?.split_whitespace().nth(1)?.parse::<u32>().ok();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent(*pid) == Some(host)).collect()
}

/// Waits until the host has so many compilers.
async fn compile(host: u32, count: usize) -> Vec<u32> {
    eventually("compilers", async || {
        let found = compilers(host);
        if found.len() == count { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await
}

/// Begins an upload; what it returns hangs up when it is dropped.
async fn begin_upload(host: &TestHost, name: &str, component: &[u8]) -> Caller {
    let mut caller = Caller::connect(&host.admin).await;
    let address = host.admin.trim_start_matches("http://");
    let length = component.len();
    caller
        .write(format!("PUT /v1/functions/{name}/code HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n"))
        .await;
    caller.write(component).await;
    caller
}

#[tokio::test]
async fn what_takes_too_much_is_refused_with_the_name_of_the_setting() {
    for (setting, value, words) in [
        ("compile-cpu-max-ms", "2000", "more than 2 s of CPU time"),
        ("compile-timeout-ms", "2000", "more than 2000 ms"),
        ("compile-memory-max-mb", "256", "more than 256 MB of memory"),
    ] {
        let host = TestHost::builder().flag(&format!("--{setting}={value}")).start().await;
        let refused = host.put_code("costly", endless(), &json!({})).await;
        let detail = refused.problem(422, "component-refused");
        assert!(detail.contains(words) && detail.contains(setting), "{detail}");
        // The next one finds the place free.
        assert_eq!(host.put_code("plain", Small::PLAIN.component(), &json!({})).await.status, 201);
        compile(host.pid(), 0).await;
    }
}

/// The niceness of a process: the 19th field of all; those after the name, which is in parentheses, begin with the third.
fn niceness(pid: u32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(16)?.parse().ok()).expect("a number")
}

#[tokio::test]
async fn the_compiler_gives_way_and_stops_when_the_uploader_leaves() {
    let host = TestHost::start().await;
    let upload = begin_upload(&host, "costly", &endless()).await;
    let compilers = compile(host.pid(), 1).await;
    eventually("a low priority", async || match niceness(compilers[0]) {
        1.. => Ok(()),
        nice => Err(nice.to_string()),
    })
    .await;
    drop(upload);
    compile(host.pid(), 0).await;
    assert_eq!(host.get("/v1/functions/costly").await.status, 404);
}

#[tokio::test]
async fn a_small_component_passes_a_large_one_and_one_that_is_compiled_passes_all() {
    let host = TestHost::start().await;
    let plain = Small::PLAIN.component();
    let _large = begin_upload(&host, "large", &large(endless())).await;
    compile(host.pid(), 1).await;
    assert_eq!(host.put_code("plain", plain.clone(), &json!({})).await.status, 201);
    let _small = begin_upload(&host, "small", &endless()).await;
    compile(host.pid(), 2).await;
    assert_eq!(host.put_code("same", plain, &json!({})).await.status, 201, "it is compiled already");
}

#[tokio::test]
async fn a_small_component_that_takes_long_holds_up_others_for_a_while_only() {
    let host = TestHost::start().await;
    let _costly = begin_upload(&host, "costly", &endless()).await;
    let first = compile(host.pid(), 1).await;
    assert_eq!(host.put_code("plain", Small::PLAIN.component(), &json!({})).await.status, 201);
    let now = compile(host.pid(), 1).await;
    assert_ne!(now, first, "the costly one began anew among the large ones");
}

#[tokio::test]
async fn a_host_that_stops_waits_for_no_compiler() {
    let host = TestHost::start().await;
    let mut uploads = Vec::new();
    for name in ["first", "second"] {
        uploads.push(begin_upload(&host, name, &endless()).await);
    }
    let compilers = compile(host.pid(), 1).await;
    host.signal(Signal::TERM);
    for upload in &mut uploads {
        let answer = upload.read_to_close().await;
        assert!(answer.contains(" 503 ") && answer.contains("host-draining"), "{answer}");
    }
    let (status, _) = host.ended().await;
    assert!(status.success());
    assert!(compilers.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()));
}

#[tokio::test]
async fn the_compiler_of_a_killed_host_ends_by_itself() {
    // The host may be killed when the compiler has just begun, or while it compiles.
    for began_ms in [0, 10, 100, 1000] {
        let host = TestHost::start().await;
        let _upload = begin_upload(&host, "costly", &endless()).await;
        let compilers = compile(host.pid(), 1).await;
        sleep(Duration::from_millis(began_ms)).await;
        host.signal(Signal::KILL);
        eventually("its end", async || {
            let gone = compilers.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists());
            if gone { Ok(()) } else { Err(format!("{compilers:?}, after {began_ms} ms")) }
        })
        .await;
    }
}
