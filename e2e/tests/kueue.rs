//! Queueing through Kueue: the real binary and the real Kueue beside the stand-in of Kelos.

#[path = "kueue/choice.rs"]
mod choice;
#[path = "kueue/concurrent.rs"]
mod concurrent;
#[path = "kueue/examples.rs"]
mod examples;
#[path = "kueue/explain.rs"]
mod explain;
#[path = "kueue/flow.rs"]
mod flow;
#[path = "kueue/outages.rs"]
mod outages;
#[path = "kueue/preempted.rs"]
mod preempted;
#[path = "kueue/status.rs"]
mod status;
#[path = "kueue/support.rs"]
mod support;
#[path = "kueue/traps.rs"]
mod traps;
#[path = "kueue/ttl.rs"]
mod ttl;
