//! Numbers from 0 to below 1: drawn, or made of given bits.

use uuid::Uuid;

/// A random number.
pub fn drawn() -> f64 {
    fraction(Uuid::new_v4().as_u64_pair().0)
}

/// The number that these bits stand for, evenly spread. An `f64` holds 53 of them exactly.
pub fn fraction(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
