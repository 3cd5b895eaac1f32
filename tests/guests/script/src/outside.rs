//! What lies beyond the instance: output, files, handles of the host and the clock.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use crate::World;

/// Milliseconds since 1970, as the instance's clock has it.
pub(crate) fn now_ms() -> u64 {
    since_1970(SystemTime::now()).as_millis() as u64
}

/// What comes of reading a file, in words: there should be none.
pub(crate) fn read_file(path: &str) -> String {
    match fs::read(path) {
        Ok(bytes) => format!("read {} bytes", bytes.len()),
        Err(error) => error.to_string(),
    }
}

pub(crate) fn print_forever() -> ! {
    // Many to a line: else a slow host takes lines for ever, because they come slower than the log takes them.
    let line = "All work and no sleep makes a dull dormouse. ".repeat(100);
    loop {
        println!("{line}");
    }
}

pub(crate) fn spawn_print<W: World>(after: Duration, text: String) {
    W::spawn(async move {
        W::sleep(after).await;
        println!("{text}");
    });
}

/// Takes handles of the host and gives none of them back.
pub(crate) fn open_handles_forever<W: World>() -> ! {
    loop {
        W::leak_handle();
    }
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
