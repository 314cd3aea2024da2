//! Bounded retry (seed 003): failed Workloads of Foreman, and Tasks that no spawner makes again. Tests that stand for a row
//! of the list of behaviours that the dispatch bridge has grown are called after it: a01, a02, …

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
#[path = "retry/source.rs"]
mod source;
#[path = "retry/steps.rs"]
mod steps;
#[path = "retry/tasks.rs"]
mod tasks;
#[path = "retry/world.rs"]
mod world;
