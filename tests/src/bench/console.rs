//! `console`: what it costs callers that somebody looks: the console open on its liveliest pages and a scrape of the metrics each second,
//! on a host with many functions and instances. And how long the first pages take there.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::Options;
use crate::clock;
use crate::host::{Host, Setup};
use crate::load_generator::{self, Group};
use crate::machine::{self, Cores, SERVER_CORE};
use crate::measure;
use crate::report::{Figure, Target};

const CONNECTIONS: usize = 16;
/// Instances of one function that are kept.
const KEPT_EACH: usize = 100;
/// Pages that are open: the list in the order that changes most, and the lanes of all instances.
const PAGES: [&str; 2] = ["/?order=requests", "/console/instances"];
/// How often the first page is fetched for its time.
const PAINTS: usize = 20;

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let (functions, instances) = if options.plan.quick { (20, 100) } else { (1000, 10_000) };
    // Built before the host waits for it.
    let hello = tests::component("example-hello");
    let mut host = Setup::new(Cores::Only(SERVER_CORE), options)?.start()?;
    for number in 0..functions {
        host.deploy(&format!("f{number}"), &hello, &json!({"concurrency": CONNECTIONS}))?;
        host.caller()?.invoke(&format!("f{number}"), "you")?;
    }
    for number in 0..instances / KEPT_EACH {
        let kept = json!({"minInstances": KEPT_EACH, "maxInstances": KEPT_EACH});
        host.deploy(&format!("kept{number}"), &hello, &kept)?;
    }
    host.parked_at_least(instances as f64)?;
    let load = Group::closed(host.data, CONNECTIONS, vec![load_generator::request("f0", "you")]);
    let (mut rates, mut ratios, mut noisy) = (Vec::new(), Vec::new(), false);
    for _ in 0..options.plan.rounds {
        let (alone, _) = measure::round(options.plan, &host.server, &load, measure::generator())?;
        let watched = {
            let watchers = Watchers::start(&host);
            let (watched, _) = measure::round(options.plan, &host.server, &load, measure::generator())?;
            watchers.stop()?;
            watched
        };
        ratios.push(watched.per_second / alone.per_second);
        rates.push(alone.per_second);
        noisy |= alone.noisy() || watched.noisy();
    }
    let looks = looks(&host, options.plan.duration, options.plan.rounds)?;
    let paints = |path: &str| -> Result<Vec<f64>> {
        let paint = |_| {
            let began = clock::now();
            let reply = host.admin()?.send(&format!("GET {path}"), "", b"")?;
            ensure!(reply.status == 200, "{path}: {}", reply.status);
            Ok(began.elapsed().as_secs_f64() * 1e3)
        };
        (0..PAINTS).map(paint).collect()
    };
    let case = format!("{functions} functions, {instances} instances");
    let figure = |name, unit| Figure::new("console", case.clone(), name, unit).noisy(noisy);
    Ok(vec![
        figure("warm, nobody looks", "requests/s").values(rates),
        figure("two pages open and a scrape a second, against nobody", "x")
            .values(ratios)
            .target(Target::AtLeast(0.99)),
        figure("CPU for those who look, of a host without load", "ms/s").values(looks),
        figure("the first page", "ms").values(paints("/")?),
        figure("the page of instances", "ms").values(paints("/console/instances")?),
    ])
}

/// CPU that the host takes for those who look while it does nothing else.
fn looks(host: &Host, duration: Duration, rounds: usize) -> Result<Vec<f64>> {
    let watchers = Watchers::start(host);
    std::thread::sleep(duration);
    let measured = (0..rounds).map(|_| {
        let (before, began) = (host.server.cpu()?, clock::now());
        std::thread::sleep(duration);
        Ok(host.server.cpu()?.saturating_sub(before).as_secs_f64() * 1e3 / began.elapsed().as_secs_f64())
    });
    let measured = measured.collect();
    watchers.stop()?;
    measured
}

/// Who looks, each on a thread of its own.
struct Watchers {
    stop: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Watchers {
    fn start(host: &Host) -> Watchers {
        let (stop, bytes) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let watch = |page: Option<&'static str>| {
            let (stop, bytes, address) = (stop.clone(), bytes.clone(), host.admin);
            // They share the load generator's core, so that what they read costs the host and not its callers' core.
            std::thread::spawn(move || {
                machine::on(measure::generator(), || match page {
                    Some(page) => follow(address, page, &stop, &bytes),
                    None => scrape(address, &stop, &bytes),
                })
            })
        };
        let threads = PAGES.into_iter().map(Some).chain([None]).map(watch).collect();
        Watchers { stop, bytes, threads }
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow::anyhow!("a watcher panicked"))??;
        }
        ensure!(self.bytes.load(Ordering::Relaxed) > 0, "nobody saw anything");
        Ok(())
    }
}

/// Keeps a page open, as a browser does.
fn follow(host: SocketAddr, page: &str, stop: &AtomicBool, bytes: &AtomicU64) -> Result<()> {
    let mut stream = TcpStream::connect(host).context("open a page")?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    write!(stream, "GET {page} HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\n\r\n")?;
    let mut buffer = vec![0; 64 << 10];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => anyhow::bail!("the page ended"),
            Ok(read) => drop(bytes.fetch_add(read as u64, Ordering::Relaxed)),
            // Nothing came in that time.
            Err(_) => {}
        }
    }
    Ok(())
}

fn scrape(host: SocketAddr, stop: &AtomicBool, bytes: &AtomicU64) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let mut client = crate::client::Client::connect(host)?;
        // As Prometheus asks.
        let reply = client.send("GET /metrics", "accept: application/openmetrics-text;version=1.0.0\r\n", b"")?;
        ensure!(reply.status == 200, "metrics: {}", reply.status);
        bytes.fetch_add(1, Ordering::Relaxed);
        for _ in 0..10 {
            if !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
    Ok(())
}
