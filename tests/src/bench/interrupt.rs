//! Ctrl-C and SIGTERM end the servers under test too: nothing that was started stays behind.
//!
//! Drops do not run when a signal ends a process, so running servers are listed here, by `server` alone.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

pub(crate) fn started(pid: u32) {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
}

/// Must be called before the process is waited for: then its number may belong to another.
pub(crate) fn ends(pid: u32) {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
}

/// Waits for a signal on a thread of its own.
pub(crate) fn watch() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        let asked = runtime.block_on(async {
            let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            std::io::Result::Ok(())
        });
        if asked.is_err() {
            return; // Signals cannot be watched; they end this process as they always do.
        }
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        for pid in running.iter().filter_map(|pid| Pid::from_raw(*pid as i32)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        // 128 and SIGINT's number, as shells have it.
        std::process::exit(130);
    });
    Ok(())
}
