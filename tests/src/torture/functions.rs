//! Functions that mean harm. Each is called again and again, by several callers at once.

use serde_json::{Value, json};
use tests::text::Small;
use tokio::task::JoinHandle;

use crate::host::Host;
use crate::{Ended, note};

/// Callers of each function.
const CALLERS: usize = 2;

/// What the scripted guest is told to do, by the name of its function.
const SCRIPTED: [(&str, &str); 8] = [
    ("hoards", r#"[{"grow-mb": 200}, {"sleep-ms": 300}]"#),
    ("grows for ever", r#"["grow-forever"]"#),
    ("spins", r#"["spin-forever"]"#),
    ("prints", r#"["print-forever"]"#),
    ("takes handles", r#"["open-handles-forever"]"#),
    ("recurses", r#"["recurse-forever"]"#),
    ("traps", r#"["trap"]"#),
    ("replies much", r#"[{"reply-bytes": 16000000}]"#),
];

/// What is written as text: instructions of the start function, and of the handler.
const WRITTEN: [(&str, &str, &str); 3] = [
    ("never starts", "(loop $on (br $on))", ""),
    (
        "fills memory",
        "",
        "(drop (memory.grow (i32.const 4000)))
         (loop $on (memory.fill (i32.const 65536) (i32.const 1) (i32.const 250000000)) (br $on))",
    ),
    (
        "touches memory late",
        "",
        "(drop (memory.grow (i32.const 4000)))
         (loop $wait
            (local.set $seen (i64.add (local.get $seen) (i64.const 1)))
            (br_if $wait (i64.lt_u (local.get $seen) (i64.const 50000000))))
         (memory.fill (i32.const 65536) (i32.const 1) (i32.const 250000000))",
    ),
];

/// Beside these, one that is always kept and never becomes ready.
const NEVER_READY: &str = "never ready";

pub(crate) async fn deploy(host: &Host) -> anyhow::Result<()> {
    let settings = json!({"memoryMb": 512, "timeoutMs": 1000, "maxInstances": 4, "idleTimeoutMs": 1000});
    for (name, _) in SCRIPTED {
        host.deploy(&function(name), tests::component("guest-probe"), &settings).await?;
    }
    for (name, start, body) in WRITTEN {
        let component = Small { start, body, ..Small::PLAIN }.component();
        host.deploy(&function(name), component, &settings).await?;
    }
    let mut never: Value = settings;
    never["minInstances"] = json!(4);
    never["environment"] = json!({"INITIALIZER": r#"{"do": ["trap"]}"#});
    host.deploy(&function(NEVER_READY), tests::component("guest-probe"), &never).await
}

pub(crate) fn enemies(host: &Host, ended: &Ended) -> Vec<JoinHandle<()>> {
    let scripted = SCRIPTED.map(|(name, steps)| (name, format!(r#"{{"do": {steps}}}"#)));
    let written = WRITTEN.map(|(name, ..)| (name, String::new()));
    let all = scripted.into_iter().chain(written).flat_map(|enemy| std::iter::repeat_n(enemy, CALLERS));
    let call = |(name, event): (&'static str, String)| {
        let (request, ended) = (host.call(&function(name), event), ended.clone());
        tokio::spawn(async move {
            while let Some(request) = request.try_clone() {
                note(&ended, name, outcome(request).await);
            }
        })
    };
    all.map(call).collect()
}

/// The status of a reply, with the code of its problem.
async fn outcome(request: reqwest::RequestBuilder) -> String {
    let reply = match request.send().await {
        Ok(reply) => reply,
        Err(error) => return format!("no reply ({error})"),
    };
    let status = reply.status().as_u16();
    if status == 200 {
        return "200".to_owned();
    }
    let problem: Value = reply.json().await.unwrap_or_default();
    format!("{status} {}", problem["code"].as_str().unwrap_or("?"))
}

fn function(name: &str) -> String {
    name.replace(' ', "-")
}
