//! Why a Task failed: its Job and the Job's pods show whether the agent or the infrastructure did.

use taskgate_api::task_policy::FailurePolicy;
use taskgate_policy::{Ending, RunObjects, TaskPhase, classify};

use crate::{context::Context, error::Error, job, task::Subject};

/// How the Task ended.
pub(super) async fn ending(
    context: &Context,
    subject: &Subject,
    rule: Option<&FailurePolicy>,
) -> Result<Ending, Error> {
    let state = &subject.state;
    if state.phase != TaskPhase::Failed {
        return Ok(classify(&subject.object, state, RunObjects::default(), rule));
    }
    let job = job::of_task(context, subject).await?;
    let pods = if job.is_some() {
        job::pods_of_task(context, &subject.namespace, &state.name).await?
    } else {
        Vec::new()
    };
    let evidence = RunObjects {
        job: job.as_ref(),
        pods: &pods,
    };
    Ok(classify(&subject.object, state, evidence, rule))
}
