//! Cancellation of Tasks, by each user and policy that may ask for it, in every state that a Task can be in.

#[path = "cancel/matrix.rs"]
mod matrix;
#[path = "cancel/support.rs"]
mod support;

#[path = "cancel/bookkeeping.rs"]
mod bookkeeping;
#[path = "cancel/command.rs"]
mod command;
#[path = "cancel/crash.rs"]
mod crash;
#[path = "cancel/crd_capability.rs"]
mod crd_capability;
#[path = "cancel/eviction.rs"]
mod eviction;
#[path = "cancel/explain.rs"]
mod explain;
#[path = "cancel/filters.rs"]
mod filters;
#[path = "cancel/grace.rs"]
mod grace;
#[path = "cancel/pool.rs"]
mod pool;
#[path = "cancel/refusals.rs"]
mod refusals;
#[path = "cancel/removed.rs"]
mod removed;
#[path = "cancel/retriggered.rs"]
mod retriggered;
#[path = "cancel/states.rs"]
mod states;
#[path = "cancel/status.rs"]
mod status;
