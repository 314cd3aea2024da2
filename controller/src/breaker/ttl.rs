//! Deletes ended Tasks: after the TTL that admission moved to an annotation, after the backoff, or so that the spawner creates the
//! next one.

use crate::{
    context::Context,
    error::{Error, is_absent, is_conflict},
    kubernetes::delete_only,
    task::{Subject, TaskResult},
};

/// Deletes the version of the Task that was read.
pub(crate) async fn delete(context: &Context, subject: &Subject) -> Result<TaskResult, Error> {
    let version = subject.resource_version().and_then(|version| version.as_str());
    let params = delete_only(Some(subject.state.uid.clone()), version.map(ToOwned::to_owned));
    let tasks = context.tasks(&subject.namespace);
    match tasks.delete(&subject.state.name, &params).await {
        Ok(_) => {
            tracing::info!(
                namespace = subject.namespace,
                name = subject.state.name,
                "deleted an ended Task"
            );
            Ok(TaskResult::AwaitChange)
        }
        Err(error) if is_absent(&error) => Ok(TaskResult::AwaitChange),
        Err(error) if is_conflict(&error) => Ok(TaskResult::Conflict),
        Err(error) => Err(subject.error("deleting", "Task", error)),
    }
}
