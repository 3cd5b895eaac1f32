//! `traces`: what it costs callers that the host sends traces of their requests, one of a hundred and all of them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::Options;
use crate::host::{Host, Setup};
use crate::load_generator::{self, Group};
use crate::machine::{self, Cores, SERVER_CORE};
use crate::measure;
use crate::report::{Figure, Target};

const CONNECTIONS: usize = 16;
/// The share of requests that are sampled, and what of the throughput is to be left.
const RATIOS: [(&str, Option<f64>); 2] = [("0.01", Some(0.98)), ("1", None)];

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    // Built before a host waits for it.
    let hello = tests::component("example-hello");
    let collector = Collector::start()?;
    let start = |flags: &[String]| -> Result<Host> {
        let mut setup = Setup::new(Cores::Only(SERVER_CORE), options)?;
        for flag in flags {
            setup = setup.flag(flag.clone());
        }
        let mut host = setup.start()?;
        host.deploy("hello", &hello, &json!({"concurrency": CONNECTIONS}))?;
        Ok(host)
    };
    let mut figures = Vec::new();
    for (ratio, least) in RATIOS {
        let without = start(&[])?;
        let flags = [
            format!("--otlp-endpoint=http://{}", collector.address),
            "--otlp-protocol=http/protobuf".to_owned(),
            format!("--trace-ratio={ratio}"),
        ];
        let with = start(&flags)?;
        let round = |host: &Host| -> Result<measure::Round> {
            let load = Group::closed(host.data, CONNECTIONS, vec![load_generator::request("hello", "you")]);
            Ok(measure::round(options.plan, &host.server, &load, measure::generator())?.0)
        };
        let before = collector.bytes.load(Ordering::Relaxed);
        let (mut throughput, mut cpu, mut noisy) = (Vec::new(), Vec::new(), false);
        for _ in 0..options.plan.rounds {
            let (without, with) = (round(&without)?, round(&with)?);
            throughput.push(with.per_second / without.per_second);
            cpu.push(without.cpu_us / with.cpu_us);
            noisy |= without.noisy() || with.noisy();
        }
        // Dropped, hosts are killed; the last spans leave when one is stopped.
        with.stop()?;
        without.stop()?;
        ensure!(collector.bytes.load(Ordering::Relaxed) > before, "no span came");
        let figure = |name, unit| Figure::new("traces", format!("ratio {ratio}"), name, unit).noisy(noisy);
        figures
            .push(figure("throughput, against no traces", "x").values(throughput).target(least.map(Target::AtLeast)));
        figures.push(figure("requests per CPU second, against no traces", "x").values(cpu));
    }
    Ok(figures)
}

/// Takes what is sent to it, on the load generator's core.
struct Collector {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Collector {
    fn start() -> Result<Collector> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a port for the collector")?;
        let (address, bytes) = (listener.local_addr()?, Arc::<AtomicU64>::default());
        let counted = bytes.clone();
        std::thread::spawn(move || {
            machine::on(measure::generator(), || {
                for stream in listener.incoming().flatten() {
                    let counted = counted.clone();
                    // A connection ends with its host.
                    std::thread::spawn(move || take(stream, &counted));
                }
                anyhow::Ok(())
            })
        });
        Ok(Collector { address, bytes })
    }
}

fn take(stream: TcpStream, bytes: &AtomicU64) -> Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        bytes.fetch_add(length as u64, Ordering::Relaxed);
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
}
