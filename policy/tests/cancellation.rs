//! The cancellation against a small model of Kelos and of the job controller: whatever the order in which they, the user
//! and our own steps come, and wherever we crash, the Task ends cancelled once, and no second Job runs.
//!
//! Only stored state survives a step, so that a crash is simply a step that is not taken.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};
use taskgate_api::keys;
use taskgate_policy::{
    CancelContext, CancelReview, CancelState, CancelStep, CancelTask, Cancellation, JobEnd, Operation, Phase, TaskRun,
    cancel_step, review_cancellation,
};

#[derive(Clone, Copy, Debug)]
enum Act {
    /// Kelos reconciles the Task; `stale`: it writes what a read of before led to (kelos T3).
    Kelos {
        stale: bool,
    },
    /// The job controller gets on: pods start, or a failing Job ends.
    Jobs,
    /// The agent ends by itself.
    End {
        succeeds: bool,
    },
    /// The controller takes one step, and crashes.
    Step,
    /// A user deletes the Job.
    DeleteJob,
    /// Kueue takes the Job its quota, and its start.
    Evict,
    /// The user asks, or withdraws the request.
    Ask {
        grace: u8,
    },
    Withdraw,
    /// The branch gets free, or is taken.
    Branch,
    /// The Workspace is made, or deleted.
    Workspace,
    /// Time goes on.
    Wait {
        seconds: u8,
    },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => prop::bool::weighted(0.2).prop_map(|stale| Act::Kelos { stale }),
        4 => Just(Act::Jobs),
        1 => any::<bool>().prop_map(|succeeds| Act::End { succeeds }),
        8 => Just(Act::Step),
        1 => Just(Act::DeleteJob),
        2 => Just(Act::Evict),
        3 => (0..20u8).prop_map(|grace| Act::Ask { grace }),
        1 => Just(Act::Withdraw),
        2 => Just(Act::Branch),
        1 => Just(Act::Workspace),
        2 => (0..15u8).prop_map(|seconds| Act::Wait { seconds }),
    ]
}

#[allow(clippy::struct_excessive_bools, reason = "a small model of the world")]
#[derive(Clone, Debug)]
struct Job {
    suspended: bool,
    /// Whether it was made when there was no way back.
    late: bool,
    deadline_set: bool,
    active: bool,
    failing: bool,
    /// Whether it has a start, without which it is not allowed to end.
    started: bool,
    /// Whether it succeeded, once it has ended.
    end: Option<bool>,
}

struct World {
    now: Timestamp,
    task: Value,
    branch_taken: bool,
    /// Since when there is a Workspace.
    workspace: Option<Timestamp>,
    /// Kelos' lock, which only a Job's end frees.
    locked: bool,
    job: Option<Job>,
    /// How many Jobs that were made when there was no way back ever ran a pod.
    ran_after: u32,
    concluded: u32,
    ended_alone: bool,
}

#[test]
fn a_job_that_finalizers_keep_is_deleted_once() {
    let task = json!({
        "metadata": {"annotations": {
            keys::CANCEL: "no longer needed", keys::CANCEL_STATE: "Cancelled",
            keys::CANCELLED_BY: "user:ann", keys::CANCEL_TRIGGER: "ByHand",
            keys::CANCEL_REQUESTED: "2027-01-15T07:59:00Z", keys::CANCEL_DEADLINE: "2027-01-15T07:59:00Z",
        }},
        "status": {"phase": "Failed"},
    });
    let now = Timestamp::from_second(1_800_000_000).expect("a time that exists");
    let step = |deleting| {
        let end = JobEnd::Ours;
        let deadline_set = true;
        cancel_step(&CancelContext {
            cancellation: &Cancellation::of(&task),
            task: CancelTask::of(&task),
            run: Some(TaskRun::Job {
                end,
                deadline_set,
                deleting,
            }),
            wanted_again: false,
            now,
        })
    };
    assert_eq!(step(false), CancelStep::DeleteJob);
    assert_eq!(step(true), CancelStep::Wait(now + SignedDuration::from_secs(5)));
}

impl World {
    fn new(branch: bool) -> Self {
        let spec = if branch { json!({"branch": "main"}) } else { json!({}) };
        Self {
            now: Timestamp::from_second(1_800_000_000).expect("a time that exists"),
            task: json!({"metadata": {"name": "t", "uid": "u", "annotations": {}}, "spec": spec, "status": {"phase": ""}}),
            branch_taken: false,
            workspace: Some(Timestamp::UNIX_EPOCH),
            locked: false,
            job: None,
            ran_after: 0,
            concluded: 0,
            ended_alone: false,
        }
    }

    fn phase(&self) -> &str {
        self.task["status"]["phase"].as_str().unwrap_or_default()
    }

    /// As the controller finds it out.
    fn can_start(&self) -> bool {
        let settled = SignedDuration::from_secs(10);
        self.workspace
            .is_some_and(|since| self.now.duration_since(since) >= settled)
    }

    fn set_phase(&mut self, phase: &str) {
        self.task["status"]["phase"] = phase.into();
    }

    fn has_ended(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }

    fn cancellation(&self) -> Cancellation {
        Cancellation::of(&self.task)
    }

    fn kelos(&mut self, stale: bool) {
        let branch = self.task["spec"].get("branch").is_some();
        if stale && self.job.is_none() && self.phase() == "Failed" && !self.ended_alone {
            // A read of before the Task was failed: back to Waiting, once in a while.
            return self.set_phase("Waiting");
        }
        match self.job.clone() {
            None if self.has_ended() => {}
            None if branch && self.branch_taken => self.set_phase("Waiting"),
            None => {
                self.locked = branch;
                if self.workspace.is_none() {
                    return;
                }
                let suspended = self.cancellation().stops_jobs(self.now);
                let late = self.cancellation().is_carried_out();
                self.job = Some(Job {
                    suspended,
                    late,
                    deadline_set: false,
                    active: false,
                    failing: false,
                    started: false,
                    end: None,
                });
                self.set_phase("Pending");
            }
            Some(Job { active: true, .. }) => self.set_phase("Running"),
            Some(Job {
                end: Some(succeeded), ..
            }) => {
                self.set_phase(if succeeded { "Succeeded" } else { "Failed" });
                self.locked = false;
            }
            Some(_) => {}
        }
    }

    fn jobs(&mut self) {
        let Some(job) = &mut self.job else { return };
        if job.failing && job.end.is_none() {
            job.active = false;
            job.end = job.started.then_some(false);
        } else if !job.suspended && job.end.is_none() && !job.active {
            job.active = true;
            job.started = true;
            self.ran_after += u32::from(job.late);
        }
    }

    fn step(&mut self) {
        let cancellation = self.cancellation();
        let mut context = CancelContext {
            cancellation: &cancellation,
            task: CancelTask::of(&self.task),
            run: None,
            wanted_again: false,
            now: self.now,
        };
        let mut step = cancel_step(&context);
        if step == CancelStep::ReadRun {
            context.run = Some(match &self.job {
                None if self.task["spec"].get("branch").is_some() && !self.can_start() => TaskRun::Stuck,
                None => TaskRun::Nothing,
                Some(job) => TaskRun::Job {
                    end: match job.end {
                        None if job.failing && !job.started => JobEnd::Startless,
                        _ if job.failing => JobEnd::Ours,
                        Some(_) => JobEnd::Other,
                        None => JobEnd::Open,
                    },
                    deadline_set: job.deadline_set,
                    deleting: false,
                },
            });
            step = cancel_step(&context);
            assert_ne!(step, CancelStep::ReadRun, "reading the run leads to a step");
        }
        let mut write = |key: &str, value: Value| self.task["metadata"]["annotations"][key] = value;
        match step {
            CancelStep::Idle | CancelStep::Wait(_) | CancelStep::Blocked | CancelStep::ReadRun => {}
            CancelStep::Announce => write(keys::CANCEL_STATE, "Announced".into()),
            CancelStep::Execute => write(keys::CANCEL_STATE, "Cancelling".into()),
            CancelStep::GiveUp(progress) => write(keys::CANCEL_STATE, progress.as_ref().into()),
            CancelStep::Conclude => {
                write(keys::CANCEL_STATE, "Cancelled".into());
                self.concluded += 1;
            }
            CancelStep::Withdraw => self.task["metadata"]["annotations"] = json!({}),
            CancelStep::SetDeadline => self.job.as_mut().expect("a Job to annotate").deadline_set = true,
            CancelStep::FailJob => {
                let job = self.job.as_mut().expect("a Job to fail");
                (job.failing, job.started) = (true, true);
            }
            CancelStep::FailTask => {
                assert!(!self.locked, "a lock would be kept");
                self.set_phase("Failed");
            }
            CancelStep::DeleteJob => {
                assert!(self.has_ended(), "Kelos would make the Job again");
                self.job = None;
            }
            CancelStep::ReleaseRunner | CancelStep::Replace => unreachable!("no pool, no successor: {step:?}"),
        }
    }

    /// What a user writes, as admission lets it through.
    fn write(&mut self, change: impl Fn(&mut Value)) {
        let mut object = self.task.clone();
        change(&mut object["metadata"]["annotations"]);
        for phase in [Phase::Mutating, Phase::Validating] {
            let decision = review_cancellation(&CancelReview {
                phase,
                operation: Operation::Update,
                object: &object,
                old: &self.task,
                user: "ann",
                own: false,
                permission: Some(&Ok(())),
                now: self.now,
            });
            if !decision.allowed() {
                return;
            }
            json_patch::patch(&mut object, &decision.patch).expect("our patch fits");
        }
        self.task = object;
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Kelos { stale } => self.kelos(stale),
            Act::Jobs => self.jobs(),
            Act::End { succeeds } => {
                if let Some(job) = self.job.as_mut().filter(|job| job.active && !job.failing) {
                    job.active = false;
                    job.end = Some(succeeds);
                    self.ended_alone = true;
                }
            }
            Act::Step => self.step(),
            Act::DeleteJob => self.job = None,
            Act::Evict => {
                if let Some(job) = self.job.as_mut().filter(|job| job.end.is_none() && !job.late) {
                    (job.suspended, job.active, job.started) = (true, false, false);
                }
            }
            Act::Ask { grace } => self.write(|annotations| {
                annotations[keys::CANCEL] = "why".into();
                annotations[keys::CANCEL_GRACE] = grace.to_string().into();
            }),
            Act::Withdraw => self.write(|annotations| {
                annotations.as_object_mut().expect("a map").remove(keys::CANCEL);
            }),
            Act::Workspace => {
                self.workspace = self.workspace.is_none().then_some(self.now);
            }
            Act::Branch => self.branch_taken = !self.branch_taken && !self.locked,
            Act::Wait { seconds } => {
                self.now += SignedDuration::from_secs(i64::from(seconds));
                // Kelos looks every two seconds for a Workspace that is missing.
                if seconds > 2 {
                    self.kelos(false);
                }
            }
        }
    }

    /// All parts go on until nothing changes any more.
    fn settle(&mut self) {
        self.branch_taken = false;
        self.workspace.get_or_insert(self.now);
        for _ in 0..40 {
            self.now += SignedDuration::from_secs(5);
            self.step();
            self.jobs();
            self.kelos(false);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_it_ends_once_and_nothing_runs_again(
        branch in any::<bool>(), acts in prop::collection::vec(act(), 0..60),
    ) {
        let mut world = World::new(branch);
        for act in acts {
            world.act(act);
        }
        world.settle();
        let cancellation = world.cancellation();
        prop_assert_eq!(world.ran_after, 0, "an agent was started after there was no way back");
        prop_assert!(!(world.has_ended() && world.locked), "the branch stays locked");
        match cancellation.progress {
            Some(CancelState::Cancelled) => {
                prop_assert_eq!(world.phase(), "Failed");
                prop_assert_eq!(world.concluded, 1, "recorded once");
                prop_assert!(world.job.is_none(), "the Job is left over");
            }
            Some(CancelState::TooLate) => prop_assert!(world.has_ended()),
            None => prop_assert!(cancellation.is_none(), "left half-way: {cancellation:?}"),
            other => prop_assert!(false, "stuck at {other:?} in phase {:?}", world.phase()),
        }
    }
}
