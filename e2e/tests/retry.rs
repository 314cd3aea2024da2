//! Bounded retry: failed Workloads of Foreman, and Tasks that no spawner creates again.

#[path = "retry/bad.rs"]
mod bad;
#[path = "retry/bridge.rs"]
mod bridge;
#[path = "retry/chaos.rs"]
mod chaos;
#[path = "retry/command.rs"]
mod command;
#[path = "retry/counting.rs"]
mod counting;
#[path = "retry/crash.rs"]
mod crash;
#[path = "retry/current.rs"]
mod current;
#[path = "retry/deletion.rs"]
mod deletion;
#[path = "retry/example.rs"]
mod example;
#[path = "retry/explain.rs"]
mod explain;
#[path = "retry/feedback.rs"]
mod feedback;
#[path = "retry/people.rs"]
mod people;
#[path = "retry/protocol.rs"]
mod protocol;
#[path = "retry/revived.rs"]
mod revived;
#[path = "retry/source.rs"]
mod source;
#[path = "retry/support.rs"]
mod support;
#[path = "retry/tasks.rs"]
mod tasks;
