//! Load: time burnt, memory and stack taken. Nothing here waits for anybody, background load excepted.

#![allow(clippy::disallowed_methods, reason = "a guest has the clock of its instance, and no other")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use crate::World;

const MB: usize = 1 << 20;

pub(crate) fn spin_ms(ms: u64) {
    spin_until(Instant::now() + Duration::from_millis(ms));
}

pub(crate) fn spin_until(end: Instant) {
    while Instant::now() < end {
        black_box(work(1_000));
    }
}

pub(crate) fn spin_forever() -> ! {
    loop {
        black_box(work(1_000));
    }
}

/// Computes in a task of its own, once the request at hand has had its chance to end.
pub(crate) fn spawn_work<W: World>(iterations: u64) {
    W::spawn(async move {
        W::sleep(Duration::from_millis(1)).await;
        black_box(work(iterations));
    });
}

/// Each iteration depends on the one before, so none can be left out or done twice unnoticed.
pub(crate) fn work(iterations: u64) -> u64 {
    (0..iterations)
        .fold(0x9e37_79b9_7f4a_7c15, |sum: u64, step| (sum ^ step).wrapping_mul(0x0100_0000_01b3).rotate_left(23))
}

/// The naive recursion: nothing but calls.
pub(crate) fn fib(n: u64) -> u64 {
    if n < 2 { n } else { fib(n - 1) + fib(n - 2) }
}

/// So many MB, each byte written: memory that was only reserved costs nothing.
pub(crate) fn touched_mb(mb: usize) -> Vec<u8> {
    black_box(vec![1; mb * MB])
}

pub(crate) fn grow_forever() -> ! {
    let mut kept = Vec::new();
    loop {
        kept.push(touched_mb(1));
    }
}

#[expect(unconditional_recursion, reason = "that is the point")]
pub(crate) fn recurse_forever(depth: u64) -> u64 {
    // The addition after the call keeps it from becoming a loop.
    black_box(recurse_forever(black_box(depth) + 1)) + 1
}
