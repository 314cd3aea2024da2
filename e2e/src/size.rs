//! How large the suites are that inject faults, and what they draw their choices from.

/// Whether they run at full size, as `make soak` wants it: `TASKGATE_E2E_SOAK=1`. Otherwise they are small enough for
/// `make test`.
pub fn is_soak() -> bool {
    std::env::var("TASKGATE_E2E_SOAK").is_ok_and(|value| !matches!(value.as_str(), "" | "0"))
}

/// What random choices are drawn from: `SEED`, or another number each time. Print it: it repeats the choices, although
/// not the timing.
///
/// # Panics
/// If `SEED` is no number.
pub fn seed() -> u64 {
    std::env::var("SEED").map_or_else(|_| rand::random(), |seed| seed.parse().expect("SEED is a number"))
}
