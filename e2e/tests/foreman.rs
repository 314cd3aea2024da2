//! The stand-in of Foreman keeps the statements that retry is built on: F1 to F25, named by their numbers, on a real API
//! server and a real garbage collector.

#[path = "foreman/agents.rs"]
mod agents;
#[path = "foreman/command.rs"]
mod command;
#[path = "foreman/deletion.rs"]
mod deletion;
#[path = "foreman/ends.rs"]
mod ends;
#[path = "foreman/jobs.rs"]
mod jobs;
#[path = "foreman/latch.rs"]
mod latch;
#[path = "foreman/planning.rs"]
mod planning;
#[path = "foreman/support.rs"]
mod support;
