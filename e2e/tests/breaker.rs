//! The failure memory and the circuit breaker (seed 000): the real binary beside the stand-in of Kelos.

#[path = "breaker/limits.rs"]
mod limits;
#[path = "breaker/net.rs"]
mod net;
#[path = "breaker/resets.rs"]
mod resets;
#[path = "breaker/world.rs"]
mod world;
