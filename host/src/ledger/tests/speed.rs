//! What a reading costs: on the posting thread, on the writer's thread, and in queries. Run by hand, in a release
//! build:
//! `cargo test --release -p dormouse --lib ledger::tests::speed -- --ignored --nocapture --test-threads 1`.
//!
//! Costs are CPU time of threads as the kernel counts it, so that other programs disturb them little.

use super::*;

/// Readings a second and of each kind, and for how long.
const RATE: u32 = 50_000;
const SECONDS: u32 = 10;

/// What is posted: the requests, and the windows that they ran in.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// Few windows that many requests share.
    Invocations,
    /// A window for each request.
    Pairs,
}

/// CPU time of the thread of this process whose number or name is `of`.
fn cpu_time(of: &str) -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let mut paths = tasks.map(|task| task.unwrap().path());
    let is_it = |path: &std::path::PathBuf| {
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        path.ends_with(of) || name.trim() == of
    };
    let text = paths.find(is_it).and_then(|path| std::fs::read_to_string(path.join("schedstat")).ok());
    let ran = text.and_then(|text| text.split(' ').next().and_then(|ran| ran.parse().ok()));
    Duration::from_nanos(ran.unwrap_or_default())
}

fn clock() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this measures real time outside tokio")]
    Instant::now()
}

/// Posts the readings of one request to `post`.
fn request(post: &meter::Post, load: Load, window: &mut WindowReading, invocation: &mut InvocationReading) {
    invocation.request = RequestId::new();
    invocation.start = SystemTime::now();
    post(Reading::Invocation(invocation));
    if matches!(load, Load::Pairs) {
        window.sequence += 1;
        window.start = invocation.start;
        window.at = invocation.start + Duration::from_micros(70);
        post(Reading::Window(window));
    }
}

/// The CPU time of making requests without posting them, which is not the ledger's.
fn idle_cost(requests: u32, load: Load) -> Duration {
    let nobody: meter::Post = Arc::new(|reading| {
        std::hint::black_box(reading);
    });
    let (mut window, mut invocation) = (window("some-function"), invocation("some-function"));
    let own = std::fs::read_link("/proc/thread-self").unwrap();
    let own = own.file_name().unwrap().to_str().unwrap().to_owned();
    let before = cpu_time(&own);
    for _ in 0..requests {
        request(&nobody, load, &mut window, &mut invocation);
    }
    std::thread::yield_now();
    cpu_time(&own).saturating_sub(before)
}

#[test]
#[ignore = "it measures"]
fn a_steady_load() {
    for load in [Load::Invocations, Load::Pairs] {
        let host = Fixture::new();
        let post = host.ledger.post();
        let (mut window, mut invocation) = (window("some-function"), invocation("some-function"));
        let requests = RATE * SECONDS;
        let (writer, file) = (cpu_time("ledger"), cpu_time("ledger-file"));
        let begin = clock();
        let (mut in_post, mut burst, mut last) = (Duration::ZERO, Duration::ZERO, writer);
        for round in 1..=SECONDS * 1000 {
            let from = clock();
            for _ in 0..RATE / 1000 {
                request(&post, load, &mut window, &mut invocation);
            }
            in_post += from.elapsed();
            if round % 5 == 0 {
                let now = cpu_time("ledger");
                burst = burst.max(now - last);
                last = now;
            }
            std::thread::sleep((begin + MS(round.into())).saturating_duration_since(clock()));
        }
        host.ledger.flush().unwrap();
        let (writer, file) = (cpu_time("ledger") - writer, cpu_time("ledger-file") - file);
        let each = |time: Duration| time.as_nanos() / u128::from(requests);
        let without = idle_cost(requests, load);
        println!(
            "{load:?} at {RATE} requests/s: {} ns of the poster, {} ns of the writer and {} ns of checkpoints for each; \
             at most {burst:?} of the writer in 5 ms",
            each(in_post.saturating_sub(without)),
            each(writer),
            each(file),
        );
    }
}

#[test]
#[ignore = "it measures"]
fn a_flood_and_queries() {
    const EACH: u32 = 250_000;
    let host = Fixture::new();
    let begin = clock();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let post = host.ledger.post();
            scope.spawn(move || {
                let (mut window, mut invocation) = (window("some-function"), invocation("some-function"));
                for _ in 0..EACH {
                    request(&post, Load::Pairs, &mut window, &mut invocation);
                }
            });
        }
    });
    let posted = begin.elapsed();
    while host.ledger.backlog() > 0 {
        std::thread::sleep(MS(1));
    }
    let stored = begin.elapsed();
    println!(
        "{} windows and as many invocations: posted in {posted:?}, stored in {stored:?}, {:.1} MB",
        4 * EACH,
        std::fs::metadata(host.folder.path().join("ledger.db")).unwrap().len() as f64 / 1e6
    );
    for group in [Group::None, Group::Function, Group::Instance, Group::Hour] {
        let begin = clock();
        let usage = host.usage(group);
        println!("usage by {group:?} over {} windows: {:?}", usage.total.windows, begin.elapsed());
    }
    let middle = begin_of_page(&host, 5000);
    for after in [None, Some(middle)] {
        let begin = clock();
        let page = host.ledger.invocations(&RecordQuery { after, ..RecordQuery::default() }, EVERY_FUNCTION).unwrap();
        println!("a page of {} invocations: {:?}", page.invocations.len(), begin.elapsed());
    }
}

/// The cursor after `records` invocations.
fn begin_of_page(host: &Fixture, records: u32) -> String {
    let query = RecordQuery { limit: records, ..RecordQuery::default() };
    host.ledger.invocations(&query, EVERY_FUNCTION).unwrap().next.unwrap()
}

#[test]
#[ignore = "it measures"]
fn latency() {
    let host = Fixture::new();
    let mut waits: Vec<Duration> = (0..50)
        .map(|_| {
            host.invocation(invocation("f"));
            let posted = clock();
            while host.ledger.backlog() > 0 {
                std::hint::spin_loop();
            }
            posted.elapsed()
        })
        .collect();
    waits.sort();
    println!("a single reading is stored after {:?} (median), {:?} (longest)", waits[25], waits[49]);
}
