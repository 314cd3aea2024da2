//! taskgate's companion controller: everything that taskgate writes to a cluster, because admission has no side effects.
//!
//! One file per concern. Every write is idempotent, touches only fields that are ours, and there is none at rest.
//!
//! Depends on `taskgate-api` and `taskgate-policy`. Called by the `taskgate` binary.

mod policy_status;

pub use policy_status::run as run_policy_status;
