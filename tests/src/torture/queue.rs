//! `queue`: a host is killed at random moments while it takes and runs events. Every event is handed over until it is
//! acknowledged, under its own identifier, and each attempt reports to a server that outlives the host. In the end every
//! event must have run and be recorded as succeeded; none may have run after its end was recorded.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::RwLock;
use tokio::time::{Instant, sleep};

use crate::host::Host;

const SENDERS: usize = 8;
/// How long the last events may take once the host is left alone.
const END_WITHIN: Duration = Duration::from_secs(120);

/// The attempts that reported, by event, and the events whose end had been seen recorded when they did.
#[derive(Default)]
struct Reports {
    attempts: HashMap<String, usize>,
    ended: HashSet<String>,
    after_end: Vec<String>,
}

type Shared = Arc<Mutex<Reports>>;

/// Numbers that follow from a seed (splitmix64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

pub(crate) async fn torture(seed: u64, events: usize, kills: usize) -> Result<()> {
    println!(
        "seed {seed}: repeat with `cargo run -p tests --bin torture -- queue --seed {seed} --events {events} --kills {kills}`"
    );
    let mut draw = Draw(seed);
    let reports = Shared::default();
    let receiver = receive(reports.clone()).await?;
    let state = Arc::new(tempfile::tempdir()?);
    let flags = ["--queue-kept-max=1000000"];
    let host = Host::start_in(state, &flags).await?;
    let settings = json!({
        "concurrency": 20, "allowedOutboundHosts": ["127.0.0.1"], "async": {"maxAttempts": 1, "maxConcurrency": 8},
    });
    host.deploy("probe", tests::component("guest-probe"), &settings).await?;
    let host = Arc::new(RwLock::new(Some(host)));
    let next = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> =
        (0..SENDERS).map(|_| tokio::spawn(send(host.clone(), next.clone(), events, receiver))).collect();
    let mut killed = 0;
    while killed < kills {
        sleep(Duration::from_millis(20 + draw.below(400))).await;
        let mut running = host.write().await;
        let Some(before) = running.take() else { bail!("the host is gone") };
        // What is seen recorded now must not run again.
        note_ended(&before, &reports).await?;
        sleep(Duration::from_millis(draw.below(30))).await;
        let state = before.kill().await?;
        killed += 1;
        *running = Some(Host::start_in(state, &flags).await?);
    }
    for sender in senders {
        sender.await??;
    }
    let host = host.write().await.take().context("the host is gone")?;
    let attempts = all_succeeded(&host, events).await?;
    host.stop().await?;
    let reports = reports.lock().expect("no holder of this lock panics");
    let lost: Vec<_> = (0..events).map(name).filter(|id| !reports.attempts.contains_key(id)).collect();
    ensure!(lost.is_empty(), "{} events never ran: {:?}", lost.len(), &lost[..lost.len().min(5)]);
    ensure!(reports.after_end.is_empty(), "ran after their end was recorded: {:?}", reports.after_end);
    let unnumbered: Vec<_> =
        reports.attempts.iter().filter(|(id, ran)| attempts.get(*id).is_none_or(|told| told < ran)).collect();
    ensure!(unnumbered.is_empty(), "ran more often than their attempts say: {unnumbered:?}");
    let again = reports.attempts.values().filter(|ran| **ran > 1).count();
    println!(
        "{events} events, {killed} kills: none lost, {again} ran again because a kill came before their end was recorded"
    );
    println!("ends that were seen recorded before a kill: {}; none of them ran again", reports.ended.len());
    Ok(())
}

fn name(number: usize) -> String {
    format!("event-{number}")
}

/// Takes the reports of attempts.
async fn receive(reports: Shared) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let reports = reports.clone();
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                // A connection may carry several; each body is the name of an event, in brackets.
                while let Ok(count) = stream.read_buf(&mut bytes).await
                    && count > 0
                {
                    while let Some(end) = bytes.iter().position(|byte| *byte == b']') {
                        let request = String::from_utf8_lossy(&bytes[..end]).into_owned();
                        bytes.drain(..=end);
                        let Some((_, id)) = request.rsplit_once('[') else { continue };
                        note_attempt(&reports, id);
                        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    Ok(address)
}

fn note_attempt(reports: &Shared, id: &str) {
    let mut reports = reports.lock().expect("no holder of this lock panics");
    *reports.attempts.entry(id.to_owned()).or_default() += 1;
    if reports.ended.contains(id) {
        reports.after_end.push(id.to_owned());
    }
}

/// Hands events over until all are acknowledged.
async fn send(
    host: Arc<RwLock<Option<Host>>>,
    next: Arc<AtomicUsize>,
    events: usize,
    receiver: SocketAddr,
) -> Result<()> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= events {
            return Ok(());
        }
        let id = name(number);
        let event = json!({"do": [{"http-post": [format!("http://{receiver}/"), format!("[{id}]")]}]}).to_string();
        loop {
            let request = {
                let host = host.read().await;
                let host = host.as_ref().context("the host is gone")?;
                host.call("probe", event.clone())
            };
            let request = request.header("dormouse-invocation-type", "async").header("dormouse-invocation-id", &id);
            match request.send().await {
                Ok(reply) if reply.status() == 202 => break,
                Ok(reply) if reply.status() == 429 || reply.status() == 503 => {}
                Ok(reply) => bail!("{id}: {} {}", reply.status(), reply.text().await?),
                // It was killed: nobody knows whether the event was accepted, so it is sent again.
                Err(_) => {}
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// All invocations in a state: identifiers and attempts.
async fn in_state(host: &Host, state: &str) -> Result<HashMap<String, usize>> {
    let (mut found, mut before) = (HashMap::new(), String::new());
    loop {
        let page = host.json(&format!("/v1/functions/probe/invocations?limit=1000&state={state}{before}")).await?;
        for one in page["invocations"].as_array().context("invocations")? {
            let id = one["id"].as_str().context("an identifier")?.to_owned();
            found.insert(id, one["attempts"].as_u64().context("attempts")? as usize);
        }
        match page["next"].as_u64() {
            Some(next) => before = format!("&before={next}"),
            None => return Ok(found),
        }
    }
}

async fn note_ended(host: &Host, reports: &Shared) -> Result<()> {
    let ended = in_state(host, "succeeded").await?;
    reports.lock().expect("no holder of this lock panics").ended.extend(ended.into_keys());
    Ok(())
}

/// Waits until every event is recorded as succeeded.
async fn all_succeeded(host: &Host, events: usize) -> Result<HashMap<String, usize>> {
    let deadline = Instant::now() + END_WITHIN;
    loop {
        let done = in_state(host, "succeeded").await?;
        if done.len() == events {
            return Ok(done);
        }
        let failed = in_state(host, "failed").await?;
        ensure!(failed.is_empty(), "{} failed: {:?}", failed.len(), failed.keys().take(5).collect::<Vec<_>>());
        ensure!(Instant::now() < deadline, "only {} of {events} events succeeded within {END_WITHIN:?}", done.len());
        sleep(Duration::from_millis(100)).await;
    }
}
