//! What a parked guest takes: memory, page tables and kernel maps.

use std::sync::Arc;

use dormouse::guest::{Blueprint, Guest};
use dormouse::ids::InstanceId;

/// Guests that are parked at once.
const GUESTS: u64 = 5_000;
/// Guests that are there before, so that what is shared by all is not counted.
const GUESTS_BEFORE: u64 = 200;

/// What the process has, in KiB and maps.
struct Taken {
    resident_kb: u64,
    page_tables_kb: u64,
    maps: u64,
}

impl Taken {
    fn now() -> Taken {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let kb = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux").lines().count() as u64;
        Taken { resident_kb: kb("VmRSS:"), page_tables_kb: kb("VmPTE:"), maps }
    }
}

/// Parks guests that were called once, and shows what each takes.
pub(super) fn show(blueprint: &Arc<Blueprint>) {
    let park = |_| {
        let mut guest = Guest::new(blueprint.clone(), InstanceId::random());
        super::started(&mut guest);
        super::call(&mut guest, 1);
        guest
    };
    let mut guests: Vec<Guest> = Vec::with_capacity((GUESTS_BEFORE + GUESTS) as usize);
    guests.extend((0..GUESTS_BEFORE).map(park));
    let before = Taken::now();
    guests.extend((0..GUESTS).map(park));
    let after = Taken::now();
    let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / GUESTS as f64;
    let (resident, tables) =
        (each(before.resident_kb, after.resident_kb), each(before.page_tables_kb, after.page_tables_kb));
    println!(
        "a parked guest, of {GUESTS}: {resident:.1} KiB resident and {tables:.1} of page tables, {:.4} maps",
        each(before.maps, after.maps),
    );
    drop(guests);
}
