//! Cancels Tasks (seed 001): takes the steps that the decision core finds ([`taskgate_policy::cancel_step`]).
//!
//! Every write names the version or the UID that was seen, and each step can be taken twice. One file per object that is
//! written: the Task (`record`), the Job and its pods (`job`), a pool's runner (`runner`). What
//! policies want is asked for in `wishes`.

mod flavour;
mod job;
pub(crate) mod look;
pub(crate) mod record;
pub(crate) mod runner;
mod siblings;
mod tell;
mod wishes;

use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::events::EventType;
use taskgate_policy::{CancelContext, CancelState, CancelStep, CancelTask, Cancellation, cancel_step};

use wishes::Considered;

use crate::{
    context::Context,
    error::Error,
    task::{Outcome, Subject},
};

pub use flavour::knows_cancelled;
pub(crate) use flavour::{Flavour, follow as follow_flavour};
pub(crate) use siblings::Siblings;
pub(crate) use wishes::{follow_sources, is_wanted_again};

/// Until a Task that cannot be cancelled is looked at again.
const BLOCKED: Duration = Duration::from_secs(10);

/// What cancellation wants of a Task.
pub(crate) enum Next {
    /// Nothing.
    Idle,
    /// To look again at this moment.
    Wait(Timestamp),
    /// A step was taken.
    Taken(Outcome),
    /// The Task has to go once its end is recorded.
    Replace,
}

/// Takes the next step towards the end of the Task, if it is to be cancelled.
pub(crate) async fn advance(context: &Context, subject: &Subject) -> Result<Next, Error> {
    let cancellation = Cancellation::of(&subject.object);
    match wishes::consider(context, subject, &cancellation).await? {
        Considered::Taken(outcome) => return Ok(Next::Taken(outcome)),
        Considered::LookAt(moment) => return Ok(Next::Wait(moment)),
        Considered::Nothing if cancellation.is_none() => return Ok(Next::Idle),
        Considered::Nothing => {}
    }
    let mut scene = CancelContext {
        cancellation: &cancellation,
        task: CancelTask::of(&subject.object),
        run: None,
        wanted_again: subject.state.must_be_replaced && !cancellation.must_be_replaced(),
        now: Timestamp::now(),
    };
    let mut step = cancel_step(&scene);
    let found = match step {
        CancelStep::ReadRun => {
            let found = look::look(context, subject, &cancellation).await?;
            scene.run = Some(found.run);
            step = cancel_step(&scene);
            found
        }
        _ => look::Found::default(),
    };
    tracing::debug!(
        namespace = subject.namespace,
        name = subject.state.name,
        ?step,
        "cancelling"
    );
    let outcome = match step {
        // Nobody who has looked is sent to look.
        CancelStep::Idle | CancelStep::ReadRun => return Ok(Next::Idle),
        CancelStep::Wait(until) => return Ok(Next::Wait(until)),
        CancelStep::Replace => return Ok(Next::Replace),
        CancelStep::Blocked => {
            tell_blocked(context, subject, &cancellation).await;
            let later = jiff::SignedDuration::try_from(BLOCKED).unwrap_or_default();
            return Ok(Next::Wait(scene.now.checked_add(later).unwrap_or(scene.now)));
        }
        CancelStep::Announce => record::announce(context, subject, &cancellation).await?,
        CancelStep::SetDeadline => job::tell(context, subject, &found, &cancellation).await?,
        CancelStep::Withdraw => record::withdraw(context, subject).await?,
        CancelStep::Execute => record::progress(context, subject, CancelState::Cancelling).await?,
        CancelStep::FailJob => job::fail(context, subject, &found, &cancellation).await?,
        CancelStep::FailTask => record::fail(context, subject, &cancellation).await?,
        CancelStep::ReleaseRunner => runner::release(context, subject, &found).await?,
        CancelStep::Conclude => record::conclude(context, subject, &cancellation).await?,
        CancelStep::GiveUp(progress) => record::give_up(context, subject, &cancellation, progress).await?,
        CancelStep::DeleteJob => job::delete(context, subject, &found).await?,
    };
    Ok(Next::Taken(outcome))
}

/// Once per Task: what keeps it from being cancelled, and what a person can do.
async fn tell_blocked(context: &Context, subject: &Subject, cancellation: &Cancellation) {
    let note = format!(
        "asked for by {}, but Kelos has not made the Task's Job, or one of somebody else's has its name. To fail the Task \
         without its Job would keep its branch locked: see why Kelos makes no Job, or delete the Task",
        taskgate_policy::requester(cancellation)
    );
    tell::once(context, subject, EventType::Warning, "CancelBlocked", &note).await;
}
