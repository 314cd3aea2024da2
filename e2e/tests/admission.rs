//! What taskgate does to Tasks and Jobs as they are created, on a real API server, seen as users see it.

#[path = "admission/breaker.rs"]
mod breaker;
#[path = "admission/failure.rs"]
mod failure;
#[path = "admission/jobs.rs"]
mod jobs;
#[path = "admission/kelos.rs"]
mod kelos;
#[path = "admission/lifecycle.rs"]
mod lifecycle;
#[path = "admission/policies.rs"]
mod policies;
#[path = "admission/scope.rs"]
mod scope;
#[path = "admission/tasks.rs"]
mod tasks;
#[path = "admission/world.rs"]
mod world;
