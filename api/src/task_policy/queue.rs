//! Queueing through Kueue.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A DNS-1123 subdomain, the form that Kueue demands of a queue's name (kueue §2), or anything with a template in it. The
/// rest is checked by admission.
pub(super) const QUEUE: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$|\{\{";

/// What becomes of a Job for which no legal queue name was found.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueOnError {
    /// It is suspended until a user acts: no Job runs outside of the quota.
    #[default]
    Suspend,
    /// It runs, outside of any quota.
    Ignore,
}

/// What becomes of a Job that Kueue deactivated.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueOnDeactivation {
    /// It stays, and its Task with it, until a user activates it again. No failure is counted.
    #[default]
    Keep,
    /// It is failed, and so is its Task: the failure counts.
    Fail,
}
