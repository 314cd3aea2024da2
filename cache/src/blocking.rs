//! CPU-bound work, which must not delay timers, watches and probes.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs `work` while the runtime's other tasks continue on other threads. On a current-thread runtime, as in tests and tools, it
/// simply runs.
pub fn block_in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
