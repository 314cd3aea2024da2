//! The next step of a cancellation, found anew each time from what is stored.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use taskgate_api::kelos;

use super::{CancelState, Cancellation, TASK_CANCELLED, annotations::is_of_cancelled_runner};

/// How often a run that is being failed is looked at again: Kelos may make its Job anew without any change of the Task
/// that would tell (kelos §6.4).
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(2);
/// After how long a run that cannot be failed is told to people.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// How often a Job that is being deleted is looked at: finalizers may keep it for as long as they like.
const GOING: SignedDuration = SignedDuration::from_secs(5);

/// What matters of a Task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "facts that do not depend on each other")]
pub struct CancelTask<'a> {
    /// `status.phase`.
    pub phase: &'a str,
    /// `status.message`.
    pub message: &'a str,
    /// Whether it has ended.
    pub ended: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether it works on a branch, whose lock a Task without a Job may hold (kelos §6.5).
    pub branch: bool,
    /// Whether a worker pool runs it, without a Job (kelos §7).
    pub pool: bool,
}

impl<'a> CancelTask<'a> {
    /// Reads the Task `object`.
    pub fn of(object: &'a Value) -> Self {
        let task = kelos::Task::of(object);
        Self {
            phase: task.phase(),
            message: task.message(),
            ended: task.is_terminal() || task.is_cancelled(),
            terminating: task.metadata().is_terminating(),
            branch: task.branch().is_some(),
            pool: task.worker_pool().is_some(),
        }
    }
}

/// How a Job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// It runs, waits, or is suspended.
    Open,
    /// It is failing or has failed for our reason.
    Ours,
    /// It is failing for our reason, but has no start, and so is never allowed to end: Kueue takes the start of a Job away
    /// while it evicts it (seen with Kueue 0.18).
    Startless,
    /// It has ended, or is ending, by itself.
    Other,
}

impl JobEnd {
    /// How the Job `job` stands.
    pub fn of(job: &Value) -> Self {
        let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
        let ends = |condition: &&Value| {
            let kind = condition["type"].as_str().unwrap_or_default();
            matches!(kind, "Complete" | "Failed" | "FailureTarget" | "SuccessCriteriaMet")
                && condition["status"] == "True"
        };
        let ending: Vec<_> = conditions.into_iter().flatten().filter(ends).collect();
        let ours = |condition: &&Value| condition["reason"] == TASK_CANCELLED;
        if ending.is_empty() {
            Self::Open
        } else if !ending.iter().any(ours) {
            Self::Other
        } else if ending.iter().any(|condition| condition["type"] == "Failed") || job["status"]["startTime"].is_string()
        {
            Self::Ours
        } else {
            Self::Startless
        }
    }
}

/// What runs for the Task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskRun {
    /// Nothing.
    Nothing,
    /// Nothing, and Kelos cannot make its Job, for want of a Workspace or an AgentConfig, or could not a moment ago:
    /// meanwhile the Task may hold its branch, whatever its phase (kelos §6.5).
    Stuck,
    /// Its Job.
    Job {
        /// How that stands.
        end: JobEnd,
        /// Whether the deadline is annotated on the Job and on all its pods.
        deadline_set: bool,
        /// Whether it is being deleted.
        deleting: bool,
    },
    /// The runner of a pool that it is assigned to.
    Runner {
        /// Whether that one was asked to let go.
        asked: bool,
    },
    /// A Job of the Task's name that is not the Task's; Kelos takes it for it (kelos §6.4).
    Foreign,
}

/// Everything that the next step turns on.
#[derive(Clone, Copy, Debug)]
pub struct CancelContext<'a> {
    /// What stands on the Task.
    pub cancellation: &'a Cancellation,
    /// The Task.
    pub task: CancelTask<'a>,
    /// What runs for it, read consistently; `None` when nobody has looked yet.
    pub run: Option<TaskRun>,
    /// Whether the item is wanted again, after its disappearance had the Task cancelled.
    pub wanted_again: bool,
    /// What time it is.
    pub now: Timestamp,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelStep {
    /// Nothing.
    Idle,
    /// Nothing, until this moment.
    Wait(Timestamp),
    /// QueueObservation what runs for the Task, and ask again.
    QueueObservation,
    /// Note that the agent is being warned.
    Announce,
    /// Write the deadline on the Job and its pods.
    Tell,
    /// Take the request back: its reason is gone.
    Withdraw,
    /// Note that there is no way back.
    Execute,
    /// Fail the Job through its status; again, when somebody took from it what it needs to end.
    FailJob,
    /// Fail the Task itself: it has no Job, and holds no lock.
    FailTask,
    /// Ask the pool's runner to let go.
    ReleaseRunner,
    /// Tell people what is in the way, and observe again.
    Blocked,
    /// Record that the Task was cancelled.
    Conclude,
    /// Record that nothing is done, as this.
    GiveUp(CancelState),
    /// Delete the Job: its end is recorded.
    DeleteJob,
    /// Delete the Task once its end is recorded: another of its name is to come.
    Replace,
}

/// The next step for the Task of `context`.
pub fn cancel_step(context: &CancelContext<'_>) -> CancelStep {
    let CancelContext { cancellation, task, .. } = context;
    // Whatever deletes the Task does all that a cancellation would.
    if task.terminating || cancellation.is_none() {
        return CancelStep::Idle;
    }
    match (cancellation.progress, task.ended) {
        (Some(CancelState::Cancelling | CancelState::Cancelled), false) => carry_out(context),
        (Some(CancelState::Cancelling), true) => conclude(context),
        (Some(CancelState::Cancelled), true) => clean_up(context),
        _ if cancellation.reason.is_none() => CancelStep::Withdraw,
        (Some(CancelState::TooLate | CancelState::Refused), _) => CancelStep::Idle,
        (None | Some(CancelState::Announced), true) => CancelStep::GiveUp(CancelState::TooLate),
        (None | Some(CancelState::Announced), false) => warn(context),
    }
}

/// Until the deadline the agent has time.
fn warn(context: &CancelContext<'_>) -> CancelStep {
    let Some(stamp) = &context.cancellation.stamp else {
        return CancelStep::GiveUp(CancelState::Refused);
    };
    if stamp.deadline <= context.now {
        return CancelStep::Execute;
    }
    match (context.cancellation.progress, context.run) {
        (None, _) => CancelStep::Announce,
        (_, None) => CancelStep::ReadRun,
        (
            _,
            Some(TaskRun::Job {
                deadline_set: false, ..
            }),
        ) => CancelStep::SetDeadline,
        _ => CancelStep::Wait(stamp.deadline),
    }
}

/// Fails whatever runs. Again, should Kelos have brought the Task back: it writes Waiting, and makes Jobs, from stale
/// reads (kelos T3).
fn carry_out(context: &CancelContext<'_>) -> CancelStep {
    let task = &context.task;
    let again = CancelStep::Wait(context.now.checked_add(LOOK_AGAIN).unwrap_or(context.now));
    match context.run {
        None => CancelStep::ReadRun,
        Some(TaskRun::Job {
            end: JobEnd::Open | JobEnd::Startless,
            ..
        }) => CancelStep::FailJob,
        Some(TaskRun::Runner { asked: false }) => CancelStep::ReleaseRunner,
        Some(TaskRun::Job { .. } | TaskRun::Runner { .. }) => again,
        // Failed sticks on both (kelos §6.5, §7).
        Some(TaskRun::Nothing) if task.pool || task.phase == kelos::WAITING => CancelStep::FailTask,
        // Before its Job the Task may hold its branch, and only the Job's end frees it (kelos T2): its Job is admitted
        // suspended, and failed. Without a branch there is nothing to hold.
        Some(TaskRun::Nothing) if task.phase.is_empty() && !task.branch => CancelStep::FailTask,
        Some(TaskRun::Nothing | TaskRun::Stuck | TaskRun::Foreign) => {
            let since = context.cancellation.stamp.as_ref().map(|stamp| stamp.deadline);
            let late = since.is_none_or(|since| context.now.duration_since(since) >= PATIENCE);
            if late { CancelStep::Blocked } else { again }
        }
    }
}

/// Was it we who ended it? The Job's reason tells; where there is none, Kelos' message.
fn conclude(context: &CancelContext<'_>) -> CancelStep {
    match context.run {
        _ if context.task.phase == kelos::SUCCEEDED => CancelStep::GiveUp(CancelState::TooLate),
        None => CancelStep::ReadRun,
        Some(TaskRun::Job { end: JobEnd::Other, .. }) => CancelStep::GiveUp(CancelState::TooLate),
        Some(_) if context.task.pool && !is_of_cancelled_runner(context.task.message) => {
            CancelStep::GiveUp(CancelState::TooLate)
        }
        Some(_) => CancelStep::Conclude,
    }
}

/// What is left goes.
fn clean_up(context: &CancelContext<'_>) -> CancelStep {
    match context.run {
        None => CancelStep::ReadRun,
        Some(TaskRun::Job { deleting: true, .. }) => {
            CancelStep::Wait(context.now.checked_add(GOING).unwrap_or(context.now))
        }
        Some(TaskRun::Job { .. }) => CancelStep::DeleteJob,
        Some(_) if context.cancellation.must_be_replaced() || context.wanted_again => CancelStep::Replace,
        Some(_) => CancelStep::Idle,
    }
}
