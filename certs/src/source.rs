//! The seam between where certificates come from and how they are served.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::Resolver;

/// Brings certificates, for as long as the process lives.
///
/// Guarantee asked of an implementation: it hands over only what may be served ([`Resolver::offer`]), tells what is wrong
/// otherwise ([`Resolver::report`]), and never ends before `shutdown`, whatever goes wrong.
pub trait Source: Send {
    /// Runs until `shutdown`.
    fn run(self, resolver: Arc<Resolver>, shutdown: CancellationToken) -> impl Future<Output = ()> + Send;
}
