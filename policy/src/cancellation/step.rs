//! The next step of a cancellation, derived anew each time from what is stored.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use taskgate_api::{condition::Condition, kelos};

use super::{CancelState, Cancellation, TASK_CANCELLED, annotations::is_of_cancelled_runner};

/// The requeue interval of a run that is being failed: Kelos may create its Job again without changing the Task (kelos §6.4).
const REQUEUE_FAILING: SignedDuration = SignedDuration::from_secs(2);
/// After how long a run that cannot be failed is reported.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// The requeue interval of a Job that is being deleted: finalizers may keep it.
const REQUEUE_DELETING: SignedDuration = SignedDuration::from_secs(5);

/// The parts of a Task that the next step depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "states that do not depend on each other")]
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

/// The end of a Job, and its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// It runs, waits, or is suspended.
    Open,
    /// It is failing or has failed because of the cancellation.
    Ours,
    /// It is failing because of the cancellation, but has no start time, without which it cannot end: Kueue removes the start time
    /// of a Job while it evicts it (seen with Kueue 0.18).
    Startless,
    /// It has ended, or is ending, for another reason.
    Other,
}

impl JobEnd {
    /// Reads the conditions of `job`.
    pub fn of(job: &Value) -> Self {
        let mut ending = Condition::all(job).filter(|condition| {
            let ends = ["Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"];
            ends.contains(&condition.kind()) && condition.is_true()
        });
        if ending.clone().next().is_none() {
            Self::Open
        } else if !ending.clone().any(|condition| condition.reason() == TASK_CANCELLED) {
            Self::Other
        } else if ending.any(|condition| condition.kind() == "Failed") || job["status"]["startTime"].is_string() {
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
    /// Nothing, and Kelos cannot create its Job because a Workspace or an AgentConfig is missing, or was a moment ago: the Task may
    /// lock its branch meanwhile, whatever its phase (kelos §6.5).
    Stuck,
    /// Its Job.
    Job {
        /// Its end.
        end: JobEnd,
        /// Whether the deadline is annotated on the Job and on all its pods.
        deadline_set: bool,
        /// Whether it is being deleted.
        deleting: bool,
    },
    /// The runner of a pool that it is assigned to.
    Runner {
        /// Whether that runner was asked to stop the Task.
        asked: bool,
    },
    /// A Job of the Task's name that does not belong to the Task; Kelos mistakes it for the Task's (kelos §6.4).
    Foreign,
}

/// The inputs of the next step.
#[derive(Clone, Copy, Debug)]
pub struct CancelContext<'a> {
    /// The annotations of the Task.
    pub cancellation: &'a Cancellation,
    /// The Task.
    pub task: CancelTask<'a>,
    /// What runs for it, read consistently; `None` when it was not read yet.
    pub run: Option<TaskRun>,
    /// Whether the item was found again after the Task was cancelled because it was removed.
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
    /// Read what runs for the Task, and derive the step again.
    ReadRun,
    /// Record that the agent is being warned.
    Announce,
    /// Write the deadline on the Job and its pods.
    SetDeadline,
    /// Withdraw the request: its reason was removed.
    Withdraw,
    /// Record that the cancellation cannot be withdrawn any more.
    Execute,
    /// Fail the Job through its status; again, when its start time was removed.
    FailJob,
    /// Fail the Task itself: it has no Job and no lock.
    FailTask,
    /// Ask the pool's runner to stop the Task.
    ReleaseRunner,
    /// Report what blocks the cancellation, and requeue.
    Blocked,
    /// Record that the Task was cancelled.
    Conclude,
    /// Record that the Task is not cancelled, with this state.
    GiveUp(CancelState),
    /// Delete the Job: its end is recorded.
    DeleteJob,
    /// Delete the Task once its end is recorded, so that the next one of its name can be created.
    Replace,
}

/// The next step for the Task of `context`.
pub fn cancel_step(context: &CancelContext<'_>) -> CancelStep {
    let CancelContext { cancellation, task, .. } = context;
    // A deletion of the Task does all that a cancellation would.
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

/// Fails what runs; again, if Kelos has restored the Task: from stale reads it sets phase Waiting and creates Jobs.
fn carry_out(context: &CancelContext<'_>) -> CancelStep {
    let task = &context.task;
    let again = CancelStep::Wait(context.now.checked_add(REQUEUE_FAILING).unwrap_or(context.now));
    match context.run {
        None => CancelStep::ReadRun,
        Some(TaskRun::Job {
            end: JobEnd::Open | JobEnd::Startless,
            ..
        }) => CancelStep::FailJob,
        Some(TaskRun::Runner { asked: false }) => CancelStep::ReleaseRunner,
        Some(TaskRun::Job { .. } | TaskRun::Runner { .. }) => again,
        // Kelos keeps the phase Failed of both (kelos §6.5, §7).
        Some(TaskRun::Nothing) if task.pool || task.phase == kelos::WAITING => CancelStep::FailTask,
        // Before its Job exists the Task may lock its branch, which only the Job's end unlocks: its Job is admitted suspended, and
        // failed. Without a branch there is no lock.
        Some(TaskRun::Nothing) if task.phase.is_empty() && !task.branch => CancelStep::FailTask,
        Some(TaskRun::Nothing | TaskRun::Stuck | TaskRun::Foreign) => {
            let since = context.cancellation.stamp.as_ref().map(|stamp| stamp.deadline);
            let late = since.is_none_or(|since| context.now.duration_since(since) >= PATIENCE);
            if late { CancelStep::Blocked } else { again }
        }
    }
}

/// Whether the cancellation ended the Task: by the Job's reason, or by Kelos' message where there is no Job.
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

/// Deletes the Job, and a Task that must be replaced.
fn clean_up(context: &CancelContext<'_>) -> CancelStep {
    match context.run {
        None => CancelStep::ReadRun,
        Some(TaskRun::Job { deleting: true, .. }) => {
            CancelStep::Wait(context.now.checked_add(REQUEUE_DELETING).unwrap_or(context.now))
        }
        Some(TaskRun::Job { .. }) => CancelStep::DeleteJob,
        Some(_) if context.cancellation.must_be_replaced() || context.wanted_again => CancelStep::Replace,
        Some(_) => CancelStep::Idle,
    }
}
