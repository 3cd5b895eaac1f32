//! `http --http2 --tls`: what other ways of carrying the same warm requests cost, beside HTTP/1.1 without TLS and beside a bare
//! server that speaks the same. The load comes from h2load, which knows all of them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::host::Setup;
use crate::machine::{self, Cores, SERVER_CORE, Watch};
use crate::measure::{self, FOREIGN_MAX};
use crate::peers;
use crate::report::{Figure, Target};
use crate::server::Server;
use crate::{Options, clock};

const CONNECTIONS: usize = 16;
/// Requests at once on a connection of HTTP/2.
const STREAMS: usize = 8;
const EVENT: &str = "you";
/// h2load never ends if its time is over before all connections have shaken hands, which takes long in a quick run.
const TIME_MIN: Duration = Duration::from_secs(2);
/// Beyond this, it has not ended.
const PATIENCE: &str = "60";

/// A way to carry requests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    http2: bool,
    tls: bool,
}

/// A server, where it listens without TLS and with it.
struct Contestant<'a> {
    server: &'a Server,
    address: SocketAddr,
}

struct Round {
    per_second: f64,
    cpu_us: f64,
    noisy: bool,
}

impl Way {
    fn name(self) -> String {
        let version = if self.http2 { format!("HTTP/2, {STREAMS} streams") } else { "HTTP/1.1".to_owned() };
        if self.tls { format!("{version}, TLS") } else { version }
    }
}

/// Measures HTTP/1.1 without TLS, and what is asked for.
pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let (http2, tls) = options.over;
    let ways =
        [Way { http2: false, tls: false }, Way { http2, tls: false }, Way { http2: false, tls }, Way { http2, tls }];
    let mut ways = ways.to_vec();
    ways.sort();
    ways.dedup();
    let start = |tls: bool| {
        let mut host = Setup::new(Cores::Only(SERVER_CORE), options)?.start()?;
        host.deploy("hello", &tests::component("example-hello"), &json!({"concurrency": 100}))?;
        if !tls {
            return Ok(host);
        }
        // Only h2load speaks TLS here, so the function is deployed before.
        host.stop()?.flag("--tls-self-signed".to_owned()).start()
    };
    let event = options.out.join("event");
    fs::write(&event, EVENT)?;
    let mut figures = Vec::new();
    let mut plain: Vec<f64> = Vec::new();
    for way in ways {
        // One pair of servers at a time, so that they take turns and nothing else runs.
        let host = start(way.tls)?;
        let bare = peers::bare::start_with(way.tls, Cores::Only(SERVER_CORE), &options.out)?;
        let ours = Contestant { server: &host.server, address: host.data };
        let limit = Contestant { server: &bare.server, address: bare.address };
        let (mut mine, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..options.plan.rounds {
            mine.push(ours.measure(options, way, &event)?);
            theirs.push(limit.measure(options, way, &event)?);
        }
        let noisy = mine.iter().chain(&theirs).any(|round| round.noisy);
        let figure =
            |name: &str, unit| Figure::new("http", format!("dormouse warm, {}", way.name()), name, unit).noisy(noisy);
        let cpu: Vec<f64> = mine.iter().map(|round| round.cpu_us).collect();
        let against_bare = mine.iter().zip(&theirs).map(|(ours, limit)| limit.cpu_us / ours.cpu_us).collect();
        figures.push(figure("throughput", "req/s").values(mine.iter().map(|round| round.per_second).collect()));
        figures.push(figure("CPU per request", "us").values(cpu.clone()));
        figures.push(figure("requests per CPU second against bare", "x").values(against_bare));
        if plain.is_empty() {
            plain = cpu;
        } else {
            let ratios = plain.iter().zip(&cpu).map(|(plain, cpu)| plain / cpu).collect();
            let target = (way.http2 && !way.tls).then_some(Target::AtLeast(0.9));
            figures.push(figure("requests per CPU second against HTTP/1.1", "x").values(ratios).target(target));
        }
    }
    Ok(figures)
}

impl Contestant<'_> {
    fn measure(&self, options: &Options, way: Way, event: &Path) -> Result<Round> {
        let time = options.plan.duration.max(TIME_MIN);
        self.load(way, event, options.plan.warm_up.max(TIME_MIN))?;
        let watch = Watch::start(&[self.server.pid()])?;
        let before = self.server.cpu()?;
        let requests = self.load(way, event, time)?;
        let cpu = clock::micros(self.server.cpu()?.saturating_sub(before));
        let noisy = watch.foreign()? > FOREIGN_MAX;
        let per_second = requests / time.as_secs_f64();
        Ok(Round { per_second, cpu_us: cpu / requests, noisy })
    }

    /// Sends requests for so long, and says how many were answered.
    fn load(&self, way: Way, event: &Path, time: Duration) -> Result<f64> {
        let mut command = Command::new("timeout");
        command
            .args([
                PATIENCE,
                "h2load",
                "-t",
                "1",
                "-c",
                &CONNECTIONS.to_string(),
                "-D",
                &format!("{}ms", time.as_millis()),
                "-d",
            ])
            .arg(event);
        if way.http2 {
            command.args(["-m", &STREAMS.to_string()]);
        } else {
            command.arg("--h1");
        }
        command.arg(format!("{}://{}/invoke/hello", if way.tls { "https" } else { "http" }, self.address));
        let output = machine::on(measure::generator(), || command.output());
        let output = output.context("run h2load; Debian's package of it is `nghttp2-client`")?;
        let said = String::from_utf8_lossy(&output.stdout);
        // `status codes: 31250 2xx, 0 3xx, 0 4xx, 0 5xx`
        let codes = said
            .lines()
            .find_map(|line| line.strip_prefix("status codes: "))
            .with_context(|| format!("h2load tells no statuses: {said}{}", String::from_utf8_lossy(&output.stderr)))?;
        let counts: Vec<f64> = codes.split(", ").filter_map(|part| part.split(' ').next()?.parse().ok()).collect();
        ensure!(counts.len() == 4 && counts[0] > 0.0 && counts[1..].iter().sum::<f64>() == 0.0, "h2load: {said}");
        Ok(counts[0])
    }
}
