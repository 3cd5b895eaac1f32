//! One round of load on one server: warm up, measure, and judge whether the machine was quiet enough.

use std::time::Duration;

use anyhow::Result;

use crate::clock;
use crate::load_generator::{Generator, Group, Tally};
use crate::machine::{self, Cores, GENERATOR_CORE, Watch};
use crate::server::Server;

/// A round in which more of the CPU went elsewhere is noisy.
pub(crate) const FOREIGN_MAX: f64 = 0.05;

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    /// How often a round is measured until it is quiet.
    pub(crate) attempts: usize,
}

/// What a server did in one round.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) cpu_us: f64,
    pub(crate) foreign: f64,
}

impl Plan {
    pub(crate) fn new(quick: bool) -> Plan {
        let ms = Duration::from_millis;
        match quick {
            true => Plan { quick, rounds: 1, warm_up: ms(100), duration: ms(300), attempts: 1 },
            false => Plan { quick, rounds: 5, warm_up: ms(500), duration: ms(2500), attempts: 3 },
        }
    }
}

impl Round {
    pub(crate) fn noisy(&self) -> bool {
        self.foreign > FOREIGN_MAX
    }
}

/// Measures until a round was quiet, and gives up with the quietest. Every reply must be as expected.
pub(crate) fn round(plan: Plan, server: &Server, group: &Group, cores: Cores) -> Result<(Round, Tally)> {
    let measured = unchecked_round(plan, server, group, cores)?;
    measured.1.check()?;
    Ok(measured)
}

/// The same, whatever the replies are.
pub(crate) fn unchecked_round(plan: Plan, server: &Server, group: &Group, cores: Cores) -> Result<(Round, Tally)> {
    let mut best: Option<(Round, Tally)> = None;
    for _ in 0..plan.attempts {
        let measured = machine::on(cores, || once(plan, server, group.clone()))?;
        if best.as_ref().is_none_or(|(round, _)| measured.0.foreign < round.foreign) {
            best = Some(measured);
        }
        if best.as_ref().is_some_and(|(round, _)| !round.noisy()) {
            break;
        }
        std::thread::sleep(plan.duration);
    }
    best.ok_or_else(|| anyhow::anyhow!("a round has at least one attempt"))
}

/// The load generator's own core.
pub(crate) fn generator() -> Cores {
    Cores::Only(GENERATOR_CORE)
}

fn once(plan: Plan, server: &Server, group: Group) -> Result<(Round, Tally)> {
    let mut generator = Generator::connect(vec![group])?;
    generator.run(plan.warm_up)?;
    let watch = Watch::start(&[server.pid()])?;
    let before = server.cpu()?;
    let mut tallies = generator.run(plan.duration)?;
    let cpu = server.cpu()?.saturating_sub(before);
    let foreign = watch.foreign()?;
    let tally = tallies.remove(0);
    let round = Round {
        per_second: tally.per_second(),
        p50_us: tally.latency_us(0.5),
        p99_us: tally.latency_us(0.99),
        p999_us: tally.latency_us(0.999),
        cpu_us: clock::micros(cpu) / tally.replies() as f64,
        foreign,
    };
    Ok((round, tally))
}
