//! Rotation, restarts and kills under load: no call may fail, by the API server's own counters.

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
#[path = "rollout/support.rs"]
mod support;
