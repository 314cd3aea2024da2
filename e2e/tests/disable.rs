//! taskgate disabled in an incident, and enabled exactly as it was: by command, by kubectl alone, and automatically when the time
//! is over.

#[path = "disable/command.rs"]
mod command;
#[path = "disable/kubectl.rs"]
mod kubectl;
#[path = "disable/support.rs"]
mod support;
