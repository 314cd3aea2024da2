//! That `taskgate check` tells what the cluster does: the same writes, sent as dry runs to the real API server and judged
//! from files, give the same verdict, message, patch, warnings, and calls, including none.
//!
//! What is drawn: policies, namespace labels, memories, Tasks, Jobs, policies to be written, changes of what is stored with
//! cancellations above all, what is there of Kueue, who asks and what they may do. `SEED=` repeats it.

#[path = "offline/answer.rs"]
mod answer;
#[path = "offline/check.rs"]
mod check;
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
#[path = "offline/world.rs"]
mod world;
