//! What turns, restarts and dies under load: no call may fail. The API server's own counters are the witness.

#[path = "rollout/certificates.rs"]
mod certificates;
#[path = "rollout/killed.rs"]
mod killed;
#[path = "rollout/late.rs"]
mod late;
#[path = "rollout/leader.rs"]
mod leader;
#[path = "rollout/load.rs"]
mod load;
#[path = "rollout/restarts.rs"]
mod restarts;
#[path = "rollout/world.rs"]
mod world;
