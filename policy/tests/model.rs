//! The task lifecycle against a small model: random histories of creates, ends, deletions, crashes between any two actions and
//! changes of the policy. Only stored state survives an action, so that a crash is simply an action that is not taken.
//!
//! Whatever happened, once the controller is idle: each end is recorded once, the limit was kept, and nothing is stuck.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;
use taskgate_api::{
    Mode, WorkItemStatus,
    task_policy::FailurePolicy,
    work_item::{Attempt, Breaker, Outcome},
};
use taskgate_policy::{
    Ending, Retrying, TaskAction, TaskContext, TaskPhase, TaskState, allowance, attempt, breaker_state, next_action,
    next_attempt, record, refresh, reset,
};

/// The UID of the `WorkItem`.
const WORK_ITEM: &str = "0b6ad59a-2c5c-4b55-8d5d-3c1d3c8a9f10";
const ITEM: &str = "fixer-42-e13156ca85";

#[derive(Clone, Debug)]
enum Act {
    /// A Task is created: by the spawner under its one name, or manually under another.
    Create { manually: bool },
    /// The agent of the n-th Task ends.
    End { task: usize, succeeds: bool },
    /// A user deletes the n-th Task.
    Delete { task: usize },
    /// The controller takes one action for the n-th Task, and crashes.
    Step { task: usize },
    /// Time goes on.
    Wait { seconds: u8 },
    /// The limit is changed, or the policy is switched off.
    Policy { limit: u32, off: bool },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => any::<bool>().prop_map(|manually| Act::Create { manually }),
        4 => (0..4usize, prop::bool::weighted(0.2)).prop_map(|(task, succeeds)| Act::End { task, succeeds }),
        1 => (0..4usize).prop_map(|task| Act::Delete { task }),
        10 => (0..4usize).prop_map(|task| Act::Step { task }),
        2 => (0..60u8).prop_map(|seconds| Act::Wait { seconds }),
        1 => (0..4u32, prop::bool::weighted(0.2)).prop_map(|(limit, off)| Act::Policy { limit, off }),
    ]
}

/// The cluster: what is stored, and what really happened.
struct World {
    now: Timestamp,
    rule: FailurePolicy,
    off: bool,
    tasks: Vec<TaskState>,
    item_status: Option<WorkItemStatus>,
    made: u32,
    /// Every Task that ended under a policy, and how.
    ends: BTreeMap<String, TaskPhase>,
    /// Failed Tasks that a user deleted.
    resets: Vec<String>,
    changed: bool,
}

impl World {
    fn new(rule: FailurePolicy) -> Self {
        Self {
            now: Timestamp::from_second(1_800_000_000).expect("a time that exists"),
            rule,
            off: false,
            tasks: Vec::new(),
            item_status: None,
            made: 0,
            ends: BTreeMap::new(),
            resets: Vec::new(),
            changed: false,
        }
    }

    fn status(&self) -> WorkItemStatus {
        self.item_status.clone().unwrap_or_default()
    }

    /// Admission, on consistent reads.
    fn create(&mut self, manually: bool) {
        let name = if manually {
            format!("hand-{}", self.made)
        } else {
            "fixer-42".to_owned()
        };
        if self.tasks.iter().any(|task| task.name == name) {
            return;
        }
        let status = self.status();
        let active = self
            .tasks
            .iter()
            .filter(|task| task.may_still_count(Some(&status)))
            .count();
        let full = u32::try_from(active).expect("a handful of Tasks") >= allowance(&status, &self.rule, self.now);
        let early = next_attempt(&status, &self.rule).is_some_and(|next| next > self.now);
        if !self.off && (full || early) {
            return;
        }
        self.made += 1;
        self.tasks.push(TaskState {
            uid: format!("uid-{:04}", self.made),
            name,
            created: self.now,
            phase: TaskPhase::Active,
            started: true,
            ended: None,
            deleting: None,
            has_finalizer: !self.off,
            work_item: (!self.off).then(|| ITEM.to_owned()),
            spawner: Some("fixer".to_owned()),
            recorded: None,
            spec_ttl: None,
            kept_ttl: Some(5),
            cancelled: false,
            must_be_replaced: false,
        });
    }

    fn action_of(&self, index: usize) -> TaskAction {
        let task = &self.tasks[index];
        let others: Vec<_> = self
            .tasks
            .iter()
            .filter(|other| other.uid != task.uid)
            .cloned()
            .collect();
        next_action(&TaskContext {
            task,
            others: &others,
            rule: (!self.off).then_some((Mode::Enforce, &self.rule)),
            work_item: Some(ITEM),
            item_status: self.item_status.as_ref().map(|status| (WORK_ITEM, status)),
            retrying: Retrying::No,
            abandoned: false,
            now: self.now,
        })
    }

    /// Takes the next action; false when there was none to take.
    fn take(&mut self, index: usize) -> bool {
        let step = self.action_of(index);
        let status = self.status();
        let task = &mut self.tasks[index];
        match step {
            // Admission marked no Job here.
            TaskAction::Done | TaskAction::Wait(_) | TaskAction::StopMarked => return false,
            TaskAction::AddFinalizer => {
                assert!(
                    task.deleting.is_none(),
                    "a finalizer cannot be added to what is being deleted"
                );
                task.has_finalizer = true;
                task.work_item = Some(ITEM.to_owned());
            }
            // The Job fails, and Kelos moves the Task to Failed.
            TaskAction::Stop => {
                task.phase = TaskPhase::Failed;
                task.ended = Some(self.now);
            }
            TaskAction::Record => {
                let new = Self::attempt(task, self.now);
                let next = record(&status, new, Some(&self.rule), self.now);
                self.item_status = Some(next.expect("what is recorded already is not recorded again"));
            }
            TaskAction::Mark => {
                task.recorded = Some(WORK_ITEM.to_owned());
                if task.phase == TaskPhase::Succeeded {
                    task.has_finalizer = false;
                }
            }
            TaskAction::Reset => {
                let uid = task.uid.clone();
                assert!(
                    self.resets.contains(&uid),
                    "only a deletion by a user is a reset: {uid}"
                );
                let next = reset(&status, "TombstoneDeleted", Some(&uid), self.now);
                self.item_status = Some(next.expect("a deletion resets once"));
            }
            TaskAction::Refresh(next) => {
                assert_eq!(Some(&*next), refresh(&status, Some(&self.rule), self.now).as_ref());
                self.item_status = Some(*next);
            }
            TaskAction::RemoveFinalizer => task.has_finalizer = false,
            TaskAction::Delete => {
                assert!(
                    !task.has_finalizer && task.phase != TaskPhase::Active,
                    "taskgate deletes after it has removed the finalizer"
                );
                self.tasks.remove(index);
                return true;
            }
        }
        if self.tasks[index].deleting.is_some() && !self.tasks[index].has_finalizer {
            self.tasks.remove(index);
        }
        true
    }

    fn attempt(task: &TaskState, now: Timestamp) -> Attempt {
        let (outcome, reason) = match task.phase {
            TaskPhase::Active => (Outcome::Deleted, "Deleted"),
            TaskPhase::Succeeded => (Outcome::Succeeded, "Succeeded"),
            TaskPhase::Failed => (Outcome::Failed, "BackoffLimitExceeded"),
        };
        let reason = reason.to_owned();
        attempt(&json!({}), task, Ending { outcome, reason }, now)
    }

    fn act(&mut self, act: &Act) {
        let nth = |task: &usize, tasks: &[TaskState]| (!tasks.is_empty()).then(|| task % tasks.len());
        match act {
            Act::Create { manually } => self.create(*manually),
            Act::End { task, succeeds } => {
                let Some(index) = nth(task, &self.tasks) else { return };
                let task = &mut self.tasks[index];
                if task.is_under_way() {
                    task.phase = if *succeeds {
                        TaskPhase::Succeeded
                    } else {
                        TaskPhase::Failed
                    };
                    task.ended = Some(self.now);
                    self.ends.insert(task.uid.clone(), task.phase);
                }
            }
            Act::Delete { task } => {
                let Some(index) = nth(task, &self.tasks) else { return };
                let task = &mut self.tasks[index];
                if task.has_finalizer {
                    task.deleting.get_or_insert(self.now);
                    self.resets.push(task.uid.clone());
                } else {
                    self.tasks.remove(index);
                    self.changed = true;
                }
            }
            Act::Step { task } => {
                if let Some(index) = nth(task, &self.tasks) {
                    self.take(index);
                }
            }
            Act::Wait { seconds } => self.now += SignedDuration::from_secs(i64::from(*seconds)),
            Act::Policy { limit, off } => {
                self.rule.max_retries_per_item = *limit;
                self.off = *off;
                self.changed = true;
            }
        }
        self.check();
    }

    /// What holds at every moment.
    fn check(&self) {
        let status = self.status();
        let mut seen: Vec<&str> = status.attempts.iter().map(|attempt| attempt.uid.as_str()).collect();
        seen.sort_unstable();
        let all = seen.len();
        seen.dedup();
        assert_eq!(seen.len(), all, "an end is recorded twice");
        let limit = self.rule.max_retries_per_item;
        let probes = self.rule.reset_after.is_some();
        if limit > 0 && !self.changed && !probes {
            assert!(
                status.consecutive_failures <= limit,
                "{} failures, limit {limit}",
                status.consecutive_failures
            );
        }
        for attempt in &status.attempts {
            let expected = match self.ends.get(&attempt.uid) {
                Some(TaskPhase::Succeeded) => Outcome::Succeeded,
                Some(_) => Outcome::Failed,
                None => continue,
            };
            assert_eq!(attempt.outcome, expected, "{attempt:?}");
        }
    }

    /// Lets the controller go on until it has nothing to do; it may not spin.
    fn settle(&mut self) {
        for _ in 0..200 {
            let Some(index) = (0..self.tasks.len())
                .find(|index| !matches!(self.action_of(*index), TaskAction::Done | TaskAction::Wait(_)))
            else {
                return;
            };
            self.take(index);
        }
        unreachable!("the controller does not become idle: {:?}", self.tasks);
    }

    /// What holds once the controller is idle.
    fn check_idle(&mut self) {
        self.settle();
        self.check();
        let status = self.status();
        for task in &self.tasks {
            assert!(task.deleting.is_none(), "stuck in deletion: {task:?}");
            if self.off {
                assert!(!task.has_finalizer, "a finalizer without a policy: {task:?}");
            } else if task.is_terminal() {
                let recorded = status.attempts.iter().any(|attempt| attempt.uid == task.uid);
                assert!(recorded || task.recorded.is_some(), "its end was lost: {task:?}");
                let keeps = task.phase == TaskPhase::Failed;
                assert!(
                    !keeps || task.has_finalizer,
                    "a failed Task without a finalizer: {task:?}"
                );
            }
        }
        if !self.off && breaker_state(&status, &self.rule, self.now) != Breaker::Closed && !self.changed {
            let written = status.breaker.map(|breaker| format!("{breaker:?}"));
            assert_ne!(written.as_deref(), Some("Closed"), "open, and written as closed");
        }
        // Without a policy, no terminal Task is left after its TTL.
        self.off = true;
        self.settle();
        self.now += SignedDuration::from_secs(600);
        self.settle();
        assert!(
            self.tasks.iter().all(|task| task.phase == TaskPhase::Active),
            "{:?}",
            self.tasks
        );
    }
}

fn rule() -> impl Strategy<Value = FailurePolicy> {
    (0..4u32, any::<bool>(), any::<bool>()).prop_map(|(limit, backoff, probe)| {
        let mut rule = json!({"maxRetriesPerItem": limit});
        if backoff {
            rule["backoff"] = json!({"initial": "10s", "max": "1m"});
        }
        if probe {
            rule["resetAfter"] = json!("30s");
        }
        serde_json::from_value(rule).expect("the rule is well-formed")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12_000))]

    #[test]
    fn whatever_happens_each_end_counts_once_and_nothing_is_stuck(
        rule in rule(), acts in proptest::collection::vec(act(), 1..60),
    ) {
        let mut world = World::new(rule);
        for act in &acts {
            world.act(act);
        }
        world.check_idle();
    }
}
