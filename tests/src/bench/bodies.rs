//! `bodies`: large bodies, sent and answered with what was sent, by the same components on Dormouse and on `wasmtime serve`. They
//! are the tests' own guests: that of wstd makes `wasmtime serve` stop answering.
//!
//! A body of 1 MiB again and again over one connection, and one of 1 GiB, which neither host can hold.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::host::Setup;
use crate::machine::{self, Cores, SERVER_CORE};
use crate::peers::wasmtime_serve::{self, Instances};
use crate::report::{Figure, Target};
use crate::server::Server;
use crate::{Options, clock, measure};

const MIB: u64 = 1 << 20;
/// What a client reads and writes at a time.
const PIECE: usize = 64 << 10;
/// No server that makes progress is silent for so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with a function that answers with the request's body.
struct Contestant<'a> {
    server: &'a Server,
    address: SocketAddr,
    path: &'static str,
}

/// What a server did.
struct Passed {
    mib_per_second: f64,
    cpu_us_per_mib: f64,
}

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let mut host = Setup::new(Cores::Only(SERVER_CORE), options)?.start()?;
    let mut figures = Vec::new();
    for (version, package, path) in
        [("0.2", "guest-http-02", "/fn/guest-http-02/echo"), ("0.3", "guest-http-03", "/fn/guest-http-03/echo")]
    {
        let component = tests::component(package);
        host.deploy(package, &component, &json!({"timeoutMs": 600_000}))?;
        let ours = Contestant { server: &host.server, address: host.data, path };
        let file = options.out.join("bodies.wasm");
        fs::write(&file, component)?;
        let peer = wasmtime_serve::start_with(&file, Instances::Reused, options);
        let mut theirs = peer.as_ref().map(|(server, address)| Contestant { server, address: *address, path: "/echo" });
        let (small, large) = if options.plan.quick { (8, 32) } else { (500, 1024) };
        for (what, bodies, mib) in [("bodies of 1 MiB", small, 1), ("one of 1 GiB", 1, large)] {
            let case = format!("{version}, {what}");
            let (mut mine, mut other) = (Vec::new(), Vec::new());
            for _ in 0..options.plan.rounds {
                mine.push(ours.pass(bodies, mib)?);
                match theirs.as_ref().map(|theirs| theirs.pass(bodies, mib)).transpose() {
                    Ok(passed) => other.extend(passed),
                    Err(error) => {
                        println!("  wasmtime serve failed with {case}: {error:#}");
                        theirs = None;
                    }
                }
            }
            figures.extend(figures_of(&case, &mine, &other));
        }
        if let Some((server, _)) = &peer {
            let peak = server.memory()?.peak_kib / 1024.0;
            figures.push(Figure::new("bodies", version, "resident at its peak, wasmtime serve", "MiB").value(peak));
        }
    }
    let peak = host.server.memory()?.peak_kib / 1024.0;
    figures.push(Figure::new("bodies", "both", "resident at its peak", "MiB").value(peak));
    Ok(figures)
}

fn figures_of(case: &str, mine: &[Passed], other: &[Passed]) -> Vec<Figure> {
    let figure = |name: &str, unit| Figure::new("bodies", case, name, unit);
    let of = |passed: &[Passed], value: fn(&Passed) -> f64| passed.iter().map(value).collect::<Vec<f64>>();
    let speed: fn(&Passed) -> f64 = |passed| passed.mib_per_second;
    let cost: fn(&Passed) -> f64 = |passed| passed.cpu_us_per_mib;
    let mut figures = vec![
        figure("up and down", "MiB/s").values(of(mine, speed)),
        figure("CPU of a MiB", "us").values(of(mine, cost)),
    ];
    if !other.is_empty() {
        let ratios = |value: fn(&Passed) -> f64| -> Vec<f64> {
            mine.iter().zip(other).map(|(mine, other)| value(mine) / value(other)).collect()
        };
        let against = figure("throughput against wasmtime serve", "x").values(ratios(speed));
        figures.push(against.target(Target::AtLeast(1.0)));
        figures.push(figure("CPU against wasmtime serve", "x").values(ratios(cost)));
    }
    figures
}

impl Contestant<'_> {
    /// Sends so many bodies of so many MiB, one after another, and reads them back.
    fn pass(&self, bodies: u64, mib: u64) -> Result<Passed> {
        machine::on(measure::generator(), || {
            let stream = TcpStream::connect(self.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut reader = BufReader::with_capacity(PIECE, stream.try_clone()?);
            self.exchange(&stream, &mut reader, 1)?;
            let (before, began) = (self.server.cpu()?, clock::now());
            for _ in 0..bodies {
                self.exchange(&stream, &mut reader, mib)?;
            }
            let took = began.elapsed().as_secs_f64();
            let cpu = clock::micros(self.server.cpu()?.saturating_sub(before));
            let sum = (bodies * mib) as f64;
            Ok(Passed { mib_per_second: sum / took, cpu_us_per_mib: cpu / sum })
        })
    }

    /// The body is read while it is written: neither server holds one of a GiB.
    fn exchange(&self, stream: &TcpStream, reader: &mut BufReader<TcpStream>, mib: u64) -> Result<()> {
        thread::scope(|scope| {
            let writer = scope.spawn(move || self.write(stream, mib));
            let read = read_reply(reader)?;
            writer.join().expect("the writer does not panic").context("send a body")?;
            ensure!(read == mib * MIB, "{read} bytes came back of {mib} MiB");
            Ok(())
        })
    }

    fn write(&self, mut stream: &TcpStream, mib: u64) -> io::Result<()> {
        let (path, host, length) = (self.path, self.address, mib * MIB);
        write!(stream, "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n")?;
        let piece = vec![b'x'; PIECE];
        (0..length / PIECE as u64).try_for_each(|_| stream.write_all(&piece))
    }
}

/// Reads a reply of status 200 and tells how long its body is.
fn read_reply(reader: &mut BufReader<TcpStream>) -> Result<u64> {
    let status = line(reader)?;
    ensure!(status.starts_with("HTTP/1.1 200"), "the answer was {status}");
    let (mut length, mut chunked) = (0, false);
    loop {
        let field = line(reader)?.to_ascii_lowercase();
        match field.split_once(':').map(|(name, value)| (name, value.trim())) {
            None => break,
            Some(("content-length", value)) => length = value.parse()?,
            Some(("transfer-encoding", value)) => chunked = value == "chunked",
            Some(_) => {}
        }
    }
    if !chunked {
        return skip(reader, length);
    }
    let mut sum = 0;
    loop {
        let size = u64::from_str_radix(&line(reader)?, 16).context("the size of a chunk")?;
        sum += skip(reader, size)?;
        line(reader)?;
        if size == 0 {
            return Ok(sum);
        }
    }
}

fn line(reader: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    ensure!(reader.read_line(&mut line)? > 0, "the connection was closed");
    Ok(line.trim_end().to_owned())
}

fn skip(reader: &mut BufReader<TcpStream>, bytes: u64) -> Result<u64> {
    let skipped = io::copy(&mut reader.take(bytes), &mut io::sink())?;
    ensure!(skipped == bytes, "the connection was closed within a body");
    Ok(skipped)
}
