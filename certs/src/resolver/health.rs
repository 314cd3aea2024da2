//! How the serving certificate is doing, for probes and metrics.

use jiff::Timestamp;

/// How the serving certificate is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// When the served leaf expires. `None`: nothing is served yet.
    pub leaf_not_after: Option<Timestamp>,
    /// When the authority expires.
    pub ca_not_after: Option<Timestamp>,
    /// Whether a newer certificate waits until the API server trusts it.
    pub waiting: bool,
    /// What went wrong since the last good certificate came.
    pub last_error: Option<String>,
}

impl Health {
    /// Whether a certificate is served whose leaf and authority are both valid at `now`.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        [self.leaf_not_after, self.ca_not_after]
            .into_iter()
            .all(|end| end.is_some_and(|end| now < end))
    }
}
