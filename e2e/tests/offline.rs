//! `taskgate check` decides as the cluster does: the same writes, sent as dry runs to the real API server and evaluated from files,
//! have the same decision, message, patch, warnings, and calls, including none.
//!
//! Drawn at random: policies, namespace labels, WorkItems, Tasks, Jobs, writes of policies, changes of stored objects (mostly
//! cancellations), the state of Kueue, users and their rights. `SEED=` repeats the choices.

#[path = "offline/answer.rs"]
mod answer;
#[path = "offline/check.rs"]
mod check;
#[path = "offline/cluster.rs"]
mod cluster;
#[path = "offline/command.rs"]
mod command;
#[path = "offline/compare.rs"]
mod compare;
#[path = "offline/differential.rs"]
mod differential;
#[path = "offline/draw.rs"]
mod draw;
#[path = "offline/dump.rs"]
mod dump;
#[path = "offline/kueue.rs"]
mod kueue;
#[path = "offline/policies.rs"]
mod policies;
#[path = "offline/send.rs"]
mod send;
#[path = "offline/updates.rs"]
mod updates;
