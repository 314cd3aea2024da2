//! Queueing through Kueue (seed 002): the real binary and the real Kueue beside the stand-in of Kelos.

#[path = "kueue/choice.rs"]
mod choice;
#[path = "kueue/crowd.rs"]
mod crowd;
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
#[path = "kueue/traps.rs"]
mod traps;
#[path = "kueue/ttl.rs"]
mod ttl;
#[path = "kueue/world.rs"]
mod world;
