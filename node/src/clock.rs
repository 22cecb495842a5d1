//! The clock that pure crates are told the time of.

use dpr_model::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_BOOTTIME`: monotonic, and goes on during suspend, so that silence counts as silence.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_nanos(boot_time_ns())
}

/// The same, as the kernel's programs read it.
pub(crate) fn boot_time_ns() -> u64 {
    nanos(ClockId::Boottime)
}

/// `CLOCK_MONOTONIC`, which stands still during suspend: by it the kernel's programs count deadlines of connections.
pub(crate) fn monotonic_ns() -> u64 {
    nanos(ClockId::Monotonic)
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let (seconds, nanos) =
        (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}
