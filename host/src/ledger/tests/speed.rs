//! How fast readings are posted and stored; run by hand.

use super::*;

#[test]
#[ignore = "it measures"]
fn speed() {
    const EACH: u32 = 250_000;
    for kind in ["invocations", "windows"] {
        let host = Fixture::new();
        #[expect(clippy::disallowed_methods, reason = "this measures real time outside tokio")]
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let post = host.ledger.post();
                scope.spawn(move || {
                    let (window, invocation) = (window("some-function"), invocation("some-function"));
                    for sequence in 0..EACH {
                        post(match kind {
                            "windows" => Reading::Window(WindowReading {
                                instance: InstanceId::random(),
                                sequence,
                                ..window.clone()
                            }),
                            _ => Reading::Invocation(InvocationReading {
                                request: RequestId::new(),
                                ..invocation.clone()
                            }),
                        });
                    }
                });
            }
        });
        let posted = start.elapsed();
        while host.ledger.backlog() > 0 {
            std::thread::sleep(MS(1));
        }
        let stored = start.elapsed();
        let queried = host.usage(Group::Function).total.windows;
        let query = start.elapsed() - stored;
        println!(
            "{kind}: posted in {posted:?}, stored in {stored:?}: {:.0} rows/s; usage over {queried} windows {query:?}",
            f64::from(4 * EACH) / stored.as_secs_f64()
        );
    }
}

#[test]
#[ignore = "it measures"]
fn latency() {
    let host = Fixture::new();
    let mut waits: Vec<Duration> = (0..50)
        .map(|_| {
            host.invocation(invocation("f"));
            #[expect(clippy::disallowed_methods, reason = "this measures real time outside tokio")]
            let posted = Instant::now();
            while host.ledger.backlog() > 0 {
                std::hint::spin_loop();
            }
            posted.elapsed()
        })
        .collect();
    waits.sort();
    println!("a single reading is stored after {:?} (median), {:?} (longest)", waits[25], waits[49]);
}
