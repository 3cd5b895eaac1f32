//! The load generator: kept connections on one thread, requests built beforehand, and no more parsing of replies than
//! it takes to know that they are right.
//!
//! A closed group has one request under way on each connection and sends the next when its reply is there. A paced
//! group sends at a rate whatever the server does; its latencies count from when a request was due, so a server that
//! stalls cannot hide the requests it held up.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::{clock, machine};

/// How long after the end of a run its last replies may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Replies are small; one read takes a whole one.
const BUFFER_BYTES: usize = 4 << 10;

/// What a group of connections does.
#[derive(Clone)]
pub(crate) struct Group {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    /// Whole requests, as bytes.
    pub(crate) requests: Vec<Vec<u8>>,
    pub(crate) order: Order,
    /// Requests a second; none: as many as are answered.
    pub(crate) rate: Option<f64>,
    /// The body that every successful reply must have; none: any.
    pub(crate) expected: Option<Vec<u8>>,
}

/// Which request comes next.
#[derive(Clone, Copy)]
pub(crate) enum Order {
    Random,
    /// Each once, in turn, then no more.
    Once,
}

/// What a group saw in a run.
pub(crate) struct Tally {
    /// Nanoseconds, of successful requests.
    pub(crate) latency: Histogram<u64>,
    /// Replies with status 200, or 202 to asynchronous invocations.
    pub(crate) ok: u64,
    /// Replies with status 429 or 503: the server said no, in order.
    pub(crate) refused: u64,
    /// All others, by status.
    pub(crate) others: BTreeMap<u16, u64>,
    /// Successful replies by how the host started them: its header `dormouse-start`, or nothing.
    pub(crate) starts: Starts,
    /// Requests that were due and never sent, because no connection was free.
    pub(crate) unsent: u64,
    /// From the first request to the last reply.
    pub(crate) elapsed: Duration,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Starts {
    pub(crate) cold: u64,
    pub(crate) parked: u64,
    pub(crate) active: u64,
}

pub(crate) struct Generator {
    poll: Poll,
    groups: Vec<Running>,
    connections: Vec<Connection>,
    random: u64,
}

struct Running {
    group: Group,
    tally: Tally,
    /// In the order of their last use: all take turns, so that the host closes none for being idle.
    idle: VecDeque<usize>,
    next: usize,
    due: Instant,
}

struct Connection {
    stream: TcpStream,
    group: usize,
    buffer: Box<[u8]>,
    filled: usize,
    /// When the request under way was sent, or was due.
    since: Option<Instant>,
}

struct Reply {
    status: u16,
    start: Option<u8>,
    body: Vec<u8>,
}

/// A request as the generator sends it.
pub(crate) fn request(function: &str, event: &str) -> Vec<u8> {
    let length = event.len();
    format!("POST /invoke/{function} HTTP/1.1\r\nhost: bench\r\ncontent-length: {length}\r\n\r\n{event}").into_bytes()
}

/// A request for a page.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").into_bytes()
}

impl Group {
    /// A closed group that sends one kind of request.
    pub(crate) fn closed(address: SocketAddr, connections: usize, requests: Vec<Vec<u8>>) -> Group {
        Group { address, connections, requests, order: Order::Random, rate: None, expected: None }
    }
}

impl Tally {
    fn new() -> Tally {
        let latency = Histogram::new(3).expect("three digits are allowed");
        let (starts, others) = (Starts::default(), BTreeMap::new());
        Tally { latency, ok: 0, refused: 0, others, starts, unsent: 0, elapsed: Duration::ZERO }
    }

    pub(crate) fn replies(&self) -> u64 {
        self.ok + self.refused + self.others.values().sum::<u64>()
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.ok as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds that the given share of successful requests did not exceed.
    pub(crate) fn latency_us(&self, share: f64) -> f64 {
        self.latency.value_at_quantile(share) as f64 / 1e3
    }

    /// Fails unless every request succeeded.
    pub(crate) fn check(&self) -> Result<()> {
        let (refused, others) = (self.refused, &self.others);
        ensure!(refused == 0 && others.is_empty(), "{refused} requests were refused, others by status: {others:?}");
        ensure!(self.ok > 0, "no request was answered");
        Ok(())
    }
}

impl Generator {
    pub(crate) fn connect(groups: Vec<Group>) -> Result<Generator> {
        let poll = Poll::new()?;
        let mut generator =
            Generator { poll, groups: Vec::new(), connections: Vec::new(), random: 0x9e37_79b9_7f4a_7c15 };
        for group in groups {
            for _ in 0..group.connections {
                generator.open(group.address)?;
            }
            let (tally, due) = (Tally::new(), clock::now());
            generator.groups.push(Running { group, tally, idle: VecDeque::new(), next: 0, due });
        }
        Ok(generator)
    }

    fn open(&mut self, address: SocketAddr) -> Result<()> {
        let stream = std::net::TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let mut stream = TcpStream::from_std(stream);
        self.poll.registry().register(&mut stream, Token(self.connections.len()), Interest::READABLE)?;
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        self.connections.push(Connection { stream, group: self.groups.len(), buffer, filled: 0, since: None });
        Ok(())
    }

    /// Sends for so long, waits for the last replies, and tells what each group saw.
    pub(crate) fn run(&mut self, duration: Duration) -> Result<Vec<Tally>> {
        let began = clock::now();
        let end = began + duration;
        for running in &mut self.groups {
            (running.tally, running.due, running.next) = (Tally::new(), began, 0);
            running.idle.clear();
        }
        let mut in_flight = self.start(began)?;
        let paced = self.groups.iter().any(|running| running.group.rate.is_some());
        // On a core of its own it never sleeps. For a pace, sleeping has too coarse a grain; and a core that sleeps must be
        // woken by an interrupt, which costs the server that answers more than many a request.
        let spins = paced || machine::is_pinned();
        let timeout = Some(if spins { Duration::ZERO } else { Duration::from_millis(100) });
        let mut events = Events::with_capacity(1024);
        loop {
            let now = clock::now();
            if now < end {
                in_flight += self.send_due(now)?;
            } else if in_flight == 0 {
                break;
            }
            ensure!(now < end + PATIENCE, "{in_flight} requests were never answered");
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                in_flight -= self.readable(event.token().0, end)?;
            }
            if in_flight == 0 && !paced {
                break;
            }
        }
        let elapsed = began.elapsed();
        Ok(self.groups.iter_mut().map(|running| running.finish(end, elapsed)).collect())
    }

    /// The first request of each closed connection; the others wait until a request is due.
    fn start(&mut self, now: Instant) -> Result<usize> {
        let mut sent = 0;
        for index in 0..self.connections.len() {
            let running = &mut self.groups[self.connections[index].group];
            match running.group.rate {
                Some(_) => running.idle.push_back(index),
                None => sent += usize::from(self.send(index, now)?),
            }
        }
        Ok(sent)
    }

    fn send_due(&mut self, now: Instant) -> Result<usize> {
        let mut sent = 0;
        for group in 0..self.groups.len() {
            let Some(rate) = self.groups[group].group.rate else { continue };
            while self.groups[group].due <= now {
                let Some(index) = self.groups[group].idle.pop_front() else { break };
                let due = self.groups[group].due;
                self.groups[group].due = due + Duration::from_secs_f64(1.0 / rate);
                sent += usize::from(self.send(index, due)?);
            }
        }
        Ok(sent)
    }

    /// Sends the next request, unless the group has none left.
    fn send(&mut self, index: usize, since: Instant) -> Result<bool> {
        let connection = &mut self.connections[index];
        let running = &mut self.groups[connection.group];
        let requests = &running.group.requests;
        let request = match running.group.order {
            Order::Once if running.next == requests.len() => return Ok(false),
            Order::Once => {
                running.next += 1;
                &requests[running.next - 1]
            }
            Order::Random if requests.len() == 1 => &requests[0],
            Order::Random => {
                // Xorshift: cheap, and even enough to choose a function.
                self.random ^= self.random << 13;
                self.random ^= self.random >> 7;
                self.random ^= self.random << 17;
                &requests[(self.random % requests.len() as u64) as usize]
            }
        };
        connection.since = Some(since);
        // A small request always fits: nothing else is under way on this connection.
        let written = connection.stream.write(request).context("send a request")?;
        ensure!(written == request.len(), "a request did not fit into the socket");
        Ok(true)
    }

    /// Reads what came; returns by how much fewer requests are under way.
    fn readable(&mut self, index: usize, end: Instant) -> Result<usize> {
        let connection = &mut self.connections[index];
        let Some(reply) = connection.read()? else { return Ok(0) };
        let now = clock::now();
        let Some(since) = connection.since.take() else { bail!("a reply came that nobody asked for") };
        let running = &mut self.groups[connection.group];
        running.record(&reply, now - since)?;
        connection.filled = 0;
        if running.group.rate.is_some() {
            running.idle.push_back(index);
            return Ok(1);
        }
        let again = now < end && self.send(index, now)?;
        Ok(usize::from(!again))
    }
}

impl Running {
    fn record(&mut self, reply: &Reply, latency: Duration) -> Result<()> {
        let tally = &mut self.tally;
        match reply.status {
            200 | 202 => tally.ok += 1,
            429 | 503 => {
                tally.refused += 1;
                return Ok(());
            }
            other => {
                *tally.others.entry(other).or_default() += 1;
                return Ok(());
            }
        }
        if let Some(expected) = &self.group.expected {
            ensure!(*expected == reply.body, "a reply was {:?}", String::from_utf8_lossy(&reply.body));
        }
        match reply.start {
            Some(b'c') => tally.starts.cold += 1,
            Some(b'p') => tally.starts.parked += 1,
            Some(b'a') => tally.starts.active += 1,
            _ => {}
        }
        tally.latency.record(latency.as_nanos() as u64)?;
        Ok(())
    }

    fn finish(&mut self, end: Instant, elapsed: Duration) -> Tally {
        let mut tally = std::mem::replace(&mut self.tally, Tally::new());
        tally.elapsed = elapsed;
        if let Some(rate) = self.group.rate {
            tally.unsent = (end.saturating_duration_since(self.due).as_secs_f64() * rate) as u64;
        }
        tally
    }
}

impl Connection {
    /// A whole reply, if one is there.
    fn read(&mut self) -> Result<Option<Reply>> {
        loop {
            ensure!(self.filled < self.buffer.len(), "a reply is larger than {BUFFER_BYTES} bytes");
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => bail!("the server closed a connection"),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error).context("read a reply"),
            }
            // Events come on edges, and whatever comes after this reply's end is a new edge.
            if let Some(reply) = parse(&self.buffer[..self.filled])? {
                return Ok(Some(reply));
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Option<Reply>> {
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = response.parse(bytes)? else { return Ok(None) };
    let (mut length, mut start) = (None, None);
    for field in response.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            length = std::str::from_utf8(field.value)?.parse::<usize>().ok();
        } else if field.name.eq_ignore_ascii_case("dormouse-start") {
            start = field.value.first().copied();
        }
    }
    let status = response.code.unwrap_or_default();
    let rest = &bytes[head..];
    let body = match length {
        Some(length) => rest.get(..length).map(<[u8]>::to_vec),
        None => joined_chunks(rest)?,
    };
    Ok(body.map(|body| Reply { status, start, body }))
}

/// The body that chunks make together, if the last one is there.
fn joined_chunks(mut bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let size = httparse::parse_chunk_size(bytes).map_err(|_| anyhow!("a reply has neither a length nor chunks"))?;
        let httparse::Status::Complete((head, size)) = size else { return Ok(None) };
        let size = size as usize;
        let Some(chunk) = bytes.get(head..head + size + 2) else { return Ok(None) };
        if size == 0 {
            return Ok(Some(body));
        }
        body.extend_from_slice(&chunk[..size]);
        bytes = &bytes[head + size + 2..];
    }
}
