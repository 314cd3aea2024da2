//! Bounded retry (seed 003): failed Workloads of Foreman, and Tasks that no spawner makes again.

#[path = "retry/world.rs"]
mod world;

#[path = "retry/command.rs"]
mod command;
#[path = "retry/protocol.rs"]
mod protocol;
#[path = "retry/tasks.rs"]
mod tasks;
