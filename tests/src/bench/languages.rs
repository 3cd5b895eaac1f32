//! `languages`: the same work in each language, one call after the other: from an upload to the first answer, a new instance,
//! one that is thawed, one that is awake; and what a parked instance occupies.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::Options;
use crate::clock::{self, millis, timed};
use crate::host::{Host, Setup};
use crate::machine::Cores;
use crate::report::Figure;

/// The test guests, which all understand the same scripts.
const GUESTS: [(&str, &str); 7] = [
    ("Rust, event", "guest-probe"),
    ("Rust, wasi:http 0.2", "guest-http-02"),
    ("Rust, wasi:http 0.3", "guest-http-03"),
    ("Python, event", "guest-python"),
    ("JavaScript, event", "guest-javascript"),
    ("JavaScript, Hono", "guest-hono"),
    ("C, event", "guest-c"),
];
/// The hooks of those whose hooks are requests, which must be asked for; all others have exports.
fn hooks(guest: &str) -> Value {
    let request = json!({"handler": "request"});
    match guest {
        "guest-hono" => json!({"initializer": request, "preFreeze": request, "preStop": request}),
        _ => json!({}),
    }
}

/// A script without steps: what is left is the call.
const EVENT: &str = r#"{"do": []}"#;
/// The longest that an instance may stay awake after its last request.
const LINGER_MS: u64 = 60_000;

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (language, guest) in GUESTS {
        let component = tests::component(guest);
        let figure = |name: &str, unit| Figure::new("languages", language, name, unit);
        figures.push(figure("component", "MiB").value(component.len() as f64 / f64::from(1 << 20)));
        let mut host = Setup::new(Cores::All, options)?.start()?;
        let hooks = hooks(guest);
        let frozen = json!({"freezeAfterMs": 0, "lifecycle": hooks});
        let (took, done) =
            timed(|| host.deploy("thaw", &component, &frozen).and_then(|()| call(&host, "thaw", "cold")));
        done?;
        figures.push(figure("deploy to first answer", "ms").value(millis(took)));
        let (colds, calls) = if options.plan.quick { (2, 5) } else { (20, 200) };
        let cold = many(colds, |index| cold(&mut host, &component, index))?;
        let thaw = many(calls, |_| parked(&host))?;
        let count = if options.plan.quick { 10 } else { 100 };
        figures.extend(memory(&mut host, &component, &json!({"lifecycle": hooks, "minInstances": count}), figure)?);
        // The last, since its instance stays awake.
        host.deploy("warm", &component, &json!({"freezeAfterMs": LINGER_MS}))?;
        call(&host, "warm", "cold")?;
        let warm = many(calls, |_| call(&host, "warm", "active"))?;
        let times = [("cold", cold), ("thaw", thaw), ("warm", warm)];
        figures.extend(times.map(|(name, values)| figure(name, "ms").value(clock::median(&values))));
    }
    Ok(figures)
}

fn many(count: usize, mut one: impl FnMut(usize) -> Result<f64>) -> Result<Vec<f64>> {
    (0..count).map(&mut one).collect()
}

/// The first call of a function whose code is there already.
fn cold(host: &mut Host, component: &[u8], index: usize) -> Result<f64> {
    let name = format!("cold-{index}");
    host.deploy(&name, component, &json!({}))?;
    call(host, &name, "cold")
}

/// A call of an instance that has frozen again.
fn parked(host: &Host) -> Result<f64> {
    host.parked_at_least(1.0)?;
    call(host, "thaw", "parked")
}

/// Milliseconds of a call to an instance that is found like that.
fn call(host: &Host, function: &str, start: &str) -> Result<f64> {
    let mut caller = host.caller()?;
    let (took, reply) = timed(|| caller.invoke(function, EVENT));
    let found = reply?.field("dormouse-start").unwrap_or_default().to_owned();
    ensure!(found == start, "{function}: an instance was {found}, not {start}");
    Ok(millis(took))
}

/// What each of several parked instances occupies that have been initialized and frozen.
fn memory(
    host: &mut Host,
    component: &[u8],
    settings: &Value,
    figure: impl Fn(&str, &'static str) -> Figure,
) -> Result<Vec<Figure>> {
    let first = host.settled()?;
    let count = settings["minInstances"].as_f64().unwrap_or_default();
    host.deploy("one", component, &json!({"minInstances": 1, "lifecycle": settings["lifecycle"]}))?;
    host.parked_at_least(first + 1.0)?;
    let before = host.server.memory()?;
    host.deploy("many", component, settings)?;
    host.parked_at_least(first + 1.0 + count)?;
    let after = host.server.memory()?;
    let each = |before: f64, after: f64| (after - before) / count;
    Ok(vec![
        figure("parked, proportional", "KiB").value(each(before.proportional_kib, after.proportional_kib)),
        figure("parked, resident", "KiB").value(each(before.resident_kib, after.resident_kib)),
        figure("page tables", "KiB").value(each(before.page_tables_kib, after.page_tables_kib)),
    ])
}
