//! The Tasks that taskgate deletes: after the TTL that admission moved aside, after the backoff, or to let a probe come.

use kube::api::{DeleteParams, Preconditions};

use crate::{
    context::Context,
    error::{Error, is_absent, is_conflict},
    task::{Outcome, Subject},
};

/// Deletes the Task that was seen, and no other: another UID or another version is another story.
pub(crate) async fn delete(context: &Context, subject: &Subject) -> Result<Outcome, Error> {
    let version = subject
        .object
        .pointer("/metadata/resourceVersion")
        .and_then(|version| version.as_str());
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(subject.state.uid.clone()),
            resource_version: version.map(ToOwned::to_owned),
        }),
        ..DeleteParams::background()
    };
    let tasks = context.tasks(&subject.namespace);
    match tasks.delete(&subject.state.name, &params).await {
        Ok(_) => {
            tracing::info!(
                namespace = subject.namespace,
                name = subject.state.name,
                "deleted an ended Task"
            );
            Ok(Outcome::Gone)
        }
        Err(error) if is_absent(&error) => Ok(Outcome::Gone),
        Err(error) if is_conflict(&error) => Ok(Outcome::Conflict),
        Err(error) => Err(Error {
            doing: "deleting",
            kind: "Task",
            namespace: subject.namespace.clone(),
            name: subject.state.name.clone(),
            source: Box::new(error),
        }),
    }
}
