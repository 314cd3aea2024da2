//! Work that takes the processor for a while: it must not keep timers, watches and probes waiting.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does `work` where the other tasks of the runtime go on meanwhile. Where there is but one thread, as in tests and tools, it
/// is done at once.
pub(crate) fn off_reactor<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
