//! How many requests taskgate sends to the API server, by its audit log: for each operation, and while idle. The numbers do not
//! depend on the machine.

#[path = "requests/admission.rs"]
mod admission;
#[path = "requests/idle.rs"]
mod idle;
#[path = "requests/recording.rs"]
mod recording;
#[path = "requests/support.rs"]
mod support;
