//! Counting failures, and the circuit breaker: the real binary beside the stand-in of Kelos.

#[path = "breaker/busy.rs"]
mod busy;
#[path = "breaker/clock.rs"]
mod clock;
#[path = "breaker/cluster.rs"]
mod cluster;
#[path = "breaker/command.rs"]
mod command;
#[path = "breaker/explain.rs"]
mod explain;
#[path = "breaker/health.rs"]
mod health;
#[path = "breaker/limits.rs"]
mod limits;
#[path = "breaker/net.rs"]
mod net;
#[path = "breaker/odd.rs"]
mod odd;
#[path = "breaker/resets.rs"]
mod resets;
#[path = "breaker/sources.rs"]
mod sources;
#[path = "breaker/status.rs"]
mod status;
#[path = "breaker/support.rs"]
mod support;
#[path = "breaker/unadmitted.rs"]
mod unadmitted;
