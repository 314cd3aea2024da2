//! The next step of a cancellation, found anew each time from what is stored.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use taskgate_api::kelos;

use super::{Cancellation, Progress};
use crate::TASK_CANCELLED;

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
pub enum Run {
    /// Nothing.
    Nothing,
    /// Nothing, and Kelos cannot make its Job, for want of a Workspace or an AgentConfig, or could not a moment ago:
    /// meanwhile the Task may hold its branch, whatever its phase (kelos §6.5).
    Stuck,
    /// Its Job.
    Job {
        /// How that stands.
        end: JobEnd,
        /// Whether the deadline stands on the Job and on all its pods.
        told: bool,
        /// Whether it is being deleted.
        going: bool,
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
pub struct CancelScene<'a> {
    /// What stands on the Task.
    pub cancellation: &'a Cancellation,
    /// The Task.
    pub task: CancelTask<'a>,
    /// What runs for it, read consistently; `None` when nobody has looked yet.
    pub run: Option<Run>,
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
    /// Look what runs for the Task, and ask again.
    Look,
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
    /// Tell people what is in the way, and look again.
    Blocked,
    /// Record that the Task was cancelled.
    Conclude,
    /// Record that nothing is done, as this.
    GiveUp(Progress),
    /// Delete the Job: its end is recorded.
    DeleteJob,
    /// Delete the Task once its end is recorded: another of its name is to come.
    Replace,
}

/// The next step for the Task of `scene`.
pub fn cancel_step(scene: &CancelScene<'_>) -> CancelStep {
    let CancelScene { cancellation, task, .. } = scene;
    // Whatever deletes the Task does all that a cancellation would.
    if task.terminating || cancellation.is_none() {
        return CancelStep::Idle;
    }
    match (cancellation.progress, task.ended) {
        (Some(Progress::Cancelling | Progress::Cancelled), false) => carry_out(scene),
        (Some(Progress::Cancelling), true) => conclude(scene),
        (Some(Progress::Cancelled), true) => clean_up(scene),
        _ if cancellation.reason.is_none() => CancelStep::Withdraw,
        (Some(Progress::TooLate | Progress::Refused), _) => CancelStep::Idle,
        (None | Some(Progress::Announced), true) => CancelStep::GiveUp(Progress::TooLate),
        (None | Some(Progress::Announced), false) => warn(scene),
    }
}

/// Until the deadline the agent has time.
fn warn(scene: &CancelScene<'_>) -> CancelStep {
    let Some(stamp) = &scene.cancellation.stamp else {
        return CancelStep::GiveUp(Progress::Refused);
    };
    if stamp.deadline <= scene.now {
        return CancelStep::Execute;
    }
    match (scene.cancellation.progress, scene.run) {
        (None, _) => CancelStep::Announce,
        (_, None) => CancelStep::Look,
        (_, Some(Run::Job { told: false, .. })) => CancelStep::Tell,
        _ => CancelStep::Wait(stamp.deadline),
    }
}

/// Fails whatever runs. Again, should Kelos have brought the Task back: it writes Waiting, and makes Jobs, from stale
/// reads (kelos T3).
fn carry_out(scene: &CancelScene<'_>) -> CancelStep {
    let task = &scene.task;
    let again = CancelStep::Wait(scene.now.checked_add(LOOK_AGAIN).unwrap_or(scene.now));
    match scene.run {
        None => CancelStep::Look,
        Some(Run::Job {
            end: JobEnd::Open | JobEnd::Startless,
            ..
        }) => CancelStep::FailJob,
        Some(Run::Runner { asked: false }) => CancelStep::ReleaseRunner,
        Some(Run::Job { .. } | Run::Runner { .. }) => again,
        // Failed sticks on both (kelos §6.5, §7).
        Some(Run::Nothing) if task.pool || task.phase == kelos::WAITING => CancelStep::FailTask,
        // Before its Job the Task may hold its branch, and only the Job's end frees it (kelos T2): its Job is admitted
        // suspended, and failed. Without a branch there is nothing to hold.
        Some(Run::Nothing) if task.phase.is_empty() && !task.branch => CancelStep::FailTask,
        Some(Run::Nothing | Run::Stuck | Run::Foreign) => {
            let since = scene.cancellation.stamp.as_ref().map(|stamp| stamp.deadline);
            let late = since.is_none_or(|since| scene.now.duration_since(since) >= PATIENCE);
            if late { CancelStep::Blocked } else { again }
        }
    }
}

/// Was it we who ended it? The Job's reason tells; where there is none, Kelos' message.
fn conclude(scene: &CancelScene<'_>) -> CancelStep {
    match scene.run {
        _ if scene.task.phase == kelos::SUCCEEDED => CancelStep::GiveUp(Progress::TooLate),
        None => CancelStep::Look,
        Some(Run::Job { end: JobEnd::Other, .. }) => CancelStep::GiveUp(Progress::TooLate),
        Some(_) if scene.task.pool && !super::wording::is_of_cancelled_runner(scene.task.message) => {
            CancelStep::GiveUp(Progress::TooLate)
        }
        Some(_) => CancelStep::Conclude,
    }
}

/// What is left goes.
fn clean_up(scene: &CancelScene<'_>) -> CancelStep {
    match scene.run {
        None => CancelStep::Look,
        Some(Run::Job { going: true, .. }) => CancelStep::Wait(scene.now.checked_add(GOING).unwrap_or(scene.now)),
        Some(Run::Job { .. }) => CancelStep::DeleteJob,
        Some(_) if scene.cancellation.makes_room() || scene.wanted_again => CancelStep::Replace,
        Some(_) => CancelStep::Idle,
    }
}
