//! `bill`: how long the bill of a month takes, from the sums of its hours and from its windows.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use dormouse::ids::{FunctionName, InstanceId};
use dormouse::ledger::{self, EVERY_FUNCTION, Group, Ledger, UsageQuery};
use dormouse::meter::{Basis, Reading, WindowReading};

use crate::Options;
use crate::clock;
use crate::report::{Figure, Target};

const DAY: Duration = Duration::from_secs(86_400);
const FUNCTIONS: u64 = 20;
/// How often each question is asked.
const TIMES: usize = 5;

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let windows: u64 = if options.plan.quick { 50_000 } else { 3_000_000 };
    let folder = tempfile::tempdir_in(options.out.join("state"))?;
    let ledger = Ledger::open(&folder.path().join("ledger.sqlite"), ledger::Options::default())?;
    let begin = SystemTime::now() - DAY * 30;
    let names: Vec<FunctionName> =
        (0..FUNCTIONS).map(|number| format!("f{number}").parse()).collect::<Result<_, _>>()?;
    let post = ledger.post();
    for number in 0..windows {
        // In the order of time, as they come from a host.
        let start = begin + DAY * 30 * (number / 1000) as u32 / (windows / 1000) as u32;
        let reading = WindowReading {
            function: names[(number % FUNCTIONS) as usize].clone(),
            version: "LATEST".into(),
            instance: InstanceId::from_u64(number % 1000 + 1),
            sequence: (number / 1000) as u32,
            start,
            open: Duration::from_millis(20),
            ended: true,
            busy: false,
            at: start + Duration::from_millis(20),
            executed: Duration::from_millis(3),
            duration: Duration::from_millis(15),
            requests: 1,
            hook_calls: 1,
            memory_bytes_peak: 1 << 20,
            memory_mb: 128,
            basis: Basis::Execution,
            parked: Duration::from_secs(1),
            parked_bytes: 1 << 20,
        };
        post(Reading::Window(&reading));
        if number % 100_000 == 0 {
            ledger.flush()?;
        }
    }
    let ask = |group: Group| -> Result<(f64, ledger::Usage)> {
        let query = UsageQuery { group, from: Some(begin), ..UsageQuery::default() };
        let began = clock::now();
        let usage = ledger.usage(&query, EVERY_FUNCTION)?;
        Ok((began.elapsed().as_secs_f64() * 1e3, usage))
    };
    let (_, exact) = ask(Group::Instance)?;
    // The last windows come into the sums a moment after they are stored.
    std::thread::sleep(Duration::from_secs(3));
    let (mut by_day, mut by_function, mut from_windows) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let (ms, days) = ask(Group::Day)?;
        ensure!(days.total == exact.total && days.total.windows == windows, "the sums are wrong");
        by_day.push(ms);
        by_function.push(ask(Group::Function)?.0);
        from_windows.push(ask(Group::Instance)?.0);
    }
    let ratios = by_day.iter().zip(&from_windows).map(|(hours, all)| all / hours).collect();
    let figure = |name, unit| Figure::new("bill", format!("a month of {windows} windows"), name, unit);
    Ok(vec![
        figure("usage by day", "ms").values(by_day),
        figure("usage by function", "ms").values(by_function),
        figure("the same from its windows", "ms").values(from_windows),
        figure("from windows, against from hours", "x")
            .values(ratios)
            .target((!options.plan.quick).then_some(Target::AtLeast(20.0))),
    ])
}
