//! Admission of Tasks, Jobs and policies on a real API server, as users see it.

#[path = "admission/applied.rs"]
mod applied;
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
#[path = "admission/lists.rs"]
mod lists;
#[path = "admission/policies.rs"]
mod policies;
#[path = "admission/reads.rs"]
mod reads;
#[path = "admission/scope.rs"]
mod scope;
#[path = "admission/support.rs"]
mod support;
#[path = "admission/tasks.rs"]
mod tasks;
