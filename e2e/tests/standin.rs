//! The stand-in of Kelos keeps the statements that taskgate is built on: S1 to S30, one test each, named by
//! its number, on a real API server and a real job controller.

#[path = "standin/denial.rs"]
mod denial;
#[path = "standin/discovery.rs"]
mod discovery;
#[path = "standin/jobs.rs"]
mod jobs;
#[path = "standin/lifecycle.rs"]
mod lifecycle;
#[path = "standin/locks.rs"]
mod locks;
#[path = "standin/naming.rs"]
mod naming;
#[path = "standin/pushed.rs"]
mod pushed;
#[path = "standin/spawner_status.rs"]
mod spawner_status;
#[path = "standin/support.rs"]
mod support;
#[path = "standin/writes.rs"]
mod writes;
