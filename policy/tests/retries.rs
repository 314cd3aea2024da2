//! Retries against a small model: random histories of failures, successes, foreign writers, wedged deletions, refused creates, and
//! a controller that is killed before, between and after the two halves of each step. What is stored is all that survives.
//!
//! Whatever happened: an object that taskgate deleted is created again, once; an object that a user deleted is not; no run is beyond
//! the limit.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::{Value, json};
use taskgate_api::{
    Mode, WorkItemStatus,
    retry_status::{Blocked, FailureClass, RetryOrder, RetryStatus},
    task_policy::{RetriedKind, RetryPolicy},
    work_item::{Attempt, Outcome},
};
use taskgate_policy::retry::{
    self, FailedRunAction, FailedRunContext, FailureCause, GivenUp, MAX_ATTEMPT, NamedObject, Predecessor, Prepared,
    Retried, SourceState, Succession, TransitionContext, TransitionStep, attempt_number, failed_run_action, successor,
    transition_step, workload_failure,
};

const PREFIX: &str = "foreman.llmkube.dev/";
const NAMESPACE: &str = "n";

#[derive(Clone, Debug)]
enum Act {
    /// The run ends.
    End { succeeds: bool, infrastructure: bool },
    /// A user repairs the failed object, and it runs again.
    Revive,
    /// A user writes to the object.
    Touch,
    /// A user deletes the object.
    Delete,
    /// A user creates an object of the name.
    Create,
    /// A foreign finalizer is put on, or taken off.
    Wedge(bool),
    /// Children linger, or are gone.
    Linger(bool),
    /// Admission refuses creates, or admits them.
    Refuse(bool),
    /// The controller takes a step.
    Step(Crash),
    /// Time goes on.
    Wait(u8),
    /// The limit is changed.
    Limit(u32),
    /// A user asks for a retry.
    Ask { reset: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    /// It is not killed.
    No,
    /// Killed before it did anything: what it knew is gone.
    Before,
    /// Killed between what it did and what it wrote of it.
    Between,
    /// Killed after both.
    After,
}

fn act() -> impl Strategy<Value = Act> {
    let crash = prop_oneof![
        8 => Just(Crash::No),
        1 => Just(Crash::Before),
        1 => Just(Crash::Between),
        1 => Just(Crash::After),
    ];
    prop_oneof![
        6 => (prop::bool::weighted(0.1), prop::bool::weighted(0.3))
            .prop_map(|(succeeds, infrastructure)| Act::End { succeeds, infrastructure }),
        1 => Just(Act::Revive),
        1 => Just(Act::Touch),
        1 => Just(Act::Delete),
        1 => Just(Act::Create),
        1 => any::<bool>().prop_map(Act::Wedge),
        1 => any::<bool>().prop_map(Act::Linger),
        1 => any::<bool>().prop_map(Act::Refuse),
        20 => crash.prop_map(Act::Step),
        4 => (0..90u8).prop_map(Act::Wait),
        1 => (1..5u32).prop_map(Act::Limit),
        1 => any::<bool>().prop_map(|reset| Act::Ask { reset }),
    ]
}

#[derive(Clone, Debug)]
struct Object {
    value: Value,
    finalizer: bool,
}

impl Object {
    fn uid(&self) -> String {
        self.value["metadata"]["uid"].as_str().expect("each has one").to_owned()
    }

    fn is_deleting(&self) -> bool {
        self.value["metadata"]["deletionTimestamp"].is_string()
    }
}

/// The cluster: what is stored, and what really happened.
#[allow(clippy::struct_excessive_bools, reason = "states that do not depend on each other")]
struct World {
    now: Timestamp,
    rule: RetryPolicy,
    status: WorkItemStatus,
    object: Option<Object>,
    lingers: bool,
    refuses: bool,
    counter: u32,
    /// What a user asked for: as long as the object is there.
    asked: Option<RetryOrder>,
    /// What the process knows and loses when it is killed.
    unsent: BTreeSet<String>,
    /// The UIDs that taskgate deleted, and those that a user deleted.
    ours: BTreeSet<String>,
    theirs: BTreeSet<String>,
    /// Objects that taskgate had deleted and not created again when a user created one of the name.
    replaced: BTreeSet<String>,
    /// What we made: the successor's number and UID, by the UID of its predecessor.
    made: BTreeMap<String, (u32, String)>,
    /// Which runs failed or succeeded.
    ends: BTreeSet<String>,
    crashed: bool,
    by_user: bool,
    limit_changed: bool,
}

impl World {
    fn new(limit: u32) -> Self {
        let mut world = Self {
            now: Timestamp::from_second(1_800_000_000).expect("a time that exists"),
            rule: serde_json::from_value(json!({"maxAttempts": limit, "feedback": true})).expect("a rule"),
            status: WorkItemStatus::default(),
            object: None,
            lingers: false,
            refuses: false,
            counter: 0,
            asked: None,
            unsent: BTreeSet::new(),
            ours: BTreeSet::new(),
            theirs: BTreeSet::new(),
            replaced: BTreeSet::new(),
            made: BTreeMap::new(),
            ends: BTreeSet::new(),
            crashed: false,
            by_user: false,
            limit_changed: false,
        };
        world.create(json!({"apiVersion": "foreman.llmkube.dev/v1alpha1", "kind": "Workload",
            "metadata": {"name": "wl", "namespace": "n"}, "spec": {"repo": "a/b", "issues": [7], "intent": "fix"}}));
        world
    }

    fn create(&mut self, mut value: Value) -> bool {
        if self.object.is_some() {
            return false;
        }
        self.counter += 1;
        value["metadata"]["uid"] = format!("uid-{:03}", self.counter).into();
        value["metadata"]["resourceVersion"] = self.counter.to_string().into();
        value["metadata"]["creationTimestamp"] = self.now.to_string().into();
        self.object = Some(Object {
            value,
            finalizer: false,
        });
        true
    }

    fn touch(&mut self) {
        self.counter += 1;
        if let Some(object) = &mut self.object {
            object.value["metadata"]["resourceVersion"] = self.counter.to_string().into();
        }
    }

    /// Deletes the object as the API server does: it stays as long as a finalizer is on it.
    fn delete(&mut self) {
        self.touch();
        let now = self.now;
        let Some(object) = &mut self.object else { return };
        if object.finalizer {
            let stamp = &mut object.value["metadata"]["deletionTimestamp"];
            if stamp.is_null() {
                *stamp = now.to_string().into();
            }
            object.value["metadata"]["finalizers"] = json!(["foreign.dev/hold"]);
        } else {
            self.object = None;
        }
    }

    fn attempt(&self, retried: Retried<'_>, outcome: Outcome, reason: &str) -> Attempt {
        serde_json::from_value(json!({
            "uid": retried.uid(), "name": "wl", "outcome": outcome, "reason": reason, "completionTime": self.now.to_string(),
        }))
        .expect("an attempt")
    }

    fn retry_status(&self) -> RetryStatus {
        self.status.retry.clone().unwrap_or_default()
    }

    /// One step; false when there was none to take.
    fn step(&mut self, crash: Crash) -> bool {
        if crash == Crash::Before {
            self.kill();
            return false;
        }
        let before = self.status.clone();
        let moved = if self.retry_status().transition.is_some() {
            self.transition(crash)
        } else {
            self.failed()
        };
        if crash == Crash::After {
            self.kill();
        }
        moved || before != self.status
    }

    fn kill(&mut self) {
        self.unsent.clear();
        self.crashed = true;
    }

    /// Writes what was computed; `false` when there is nothing to write.
    fn put(&mut self, next: Option<WorkItemStatus>) -> bool {
        match next {
            Some(next) => {
                assert_ne!(next, self.status, "a write that changes nothing");
                self.status = next;
                true
            }
            None => false,
        }
    }

    fn failed(&mut self) -> bool {
        let (status, now) = (self.retry_status(), self.now);
        let object = self.object.clone();
        if let (Some(run), Some(_)) = (&status.run, &status.failure) {
            let there = object.as_ref().is_some_and(|object| object.uid() == run.uid);
            if !there {
                return self.put(retry::run_deleted(&self.status, &run.uid, now));
            }
        }
        let lost = retry::running_successor(&self.status).filter(|run| {
            let there = object.as_ref().is_some_and(|object| object.uid() == run.uid);
            !there
        });
        if let Some(run) = lost.cloned() {
            assert!(self.theirs.contains(&run.uid), "{run:?} was not deleted by a user");
            assert!(!self.ends.contains(&run.uid) || self.status.attempts.iter().all(|attempt| attempt.uid != run.uid));
            return self.put(retry::successor_deleted(&self.status, &run.uid, now));
        }
        let Some(object) = object else { return false };
        let retried = Retried::of(RetriedKind::Workload, &object.value).expect("a Workload");
        let stale = |order: &RetryOrder| order.uid != retried.uid() || !retried.is_tombstone();
        self.asked = self.asked.take().filter(|order| !stale(order));
        if object.value["status"]["phase"] == "Completed" {
            let attempt = self.attempt(retried, Outcome::Succeeded, "Succeeded");
            let next = retry::succeeded(&self.status, &retried.run(), self.now, attempt, now);
            return self.put(next);
        }
        if retried.is_revived() {
            return self.put(retry::revived(&self.status, retried.uid(), now));
        }
        let cause = Self::failure(&object.value);
        let step = failed_run_action(&FailedRunContext {
            object: retried,
            status: &status,
            asked: self.asked.as_ref().map(|order| (order, "ann")),
            rule: Some(("p", Mode::Enforce, &self.rule)),
            cause: Some(&cause),
            infrastructure_failures: self.status.infrastructure_failures,
            settles: None,
            source: None,
            now,
        });
        match step {
            FailedRunAction::Nothing | FailedRunAction::Wait(_) | FailedRunAction::ReadSource(_) => false,
            FailedRunAction::Record => {
                let failure = cause;
                let number = attempt_number(&status, retried.uid(), retried.stated_attempt(PREFIX));
                let attempt = self.attempt(retried, failure.outcome(), &failure.reason);
                let next = retry::failed(&self.status, &retried.run(), number, attempt, &failure, now);
                assert!(next.is_some(), "what is to be recorded is not recorded yet");
                self.put(next)
            }
            FailedRunAction::Schedule(next) => {
                let next = retry::scheduled(&self.status, retried.uid(), next, now);
                assert!(next.is_some(), "what is to be recorded is not recorded yet");
                self.put(next)
            }
            FailedRunAction::GiveUp(why) => self.put(retry::gave_up(&self.status, retried.uid(), why, now)),
            FailedRunAction::Begin(transition) => {
                let next = retry::begun(&self.status, &transition, now);
                assert!(next.is_some(), "what is to begin can begin");
                self.put(next)
            }
        }
    }

    fn failure(object: &Value) -> FailureCause {
        let reason = object["status"]["reason"].as_str().unwrap_or_default();
        let child = json!({"spec": {"kind": "issue-fix"}, "status": {"phase": "Failed", "failureReason": reason}});
        workload_failure(object, &[child])
    }

    fn transition(&mut self, crash: Crash) -> bool {
        let now = self.now;
        let status = self.retry_status();
        let transition = status.transition.as_ref().expect("looked before");
        let uid = transition.old.uid.clone();
        let object = self.object.clone();
        let retried = object
            .as_ref()
            .and_then(|object| Retried::of(RetriedKind::Workload, &object.value));
        let left: Vec<String> = if self.lingers {
            vec!["child".to_owned()]
        } else {
            Vec::new()
        };
        let mut context = TransitionContext {
            transition,
            found: NamedObject::of(retried, transition),
            wanted: true,
            invalid: None,
            unsent: self.unsent.contains(&uid),
            left: None,
            now,
        };
        let mut step = transition_step(&context);
        if step == TransitionStep::ListRemains {
            context.left = Some(&left);
            step = transition_step(&context);
        }
        match step {
            TransitionStep::Wait(_) => false,
            TransitionStep::ListRemains => unreachable!("looked"),
            TransitionStep::Prepare => {
                let retried = retried.expect("there is something to prepare");
                if self.refuses {
                    return self.refused(&uid);
                }
                let prepared = Prepared {
                    resource_version: retried.version().to_owned(),
                    predecessor: Predecessor::of(retried).to_value(),
                    feedback: Some("F".to_owned()),
                    children: Vec::new(),
                };
                self.unsent.insert(uid.clone());
                let next = retry::prepared(&self.status, &uid, &prepared, now);
                self.put(next)
            }
            TransitionStep::Replan => self.put(retry::replanned(&self.status, &uid, now)),
            TransitionStep::Delete => {
                let object = object.expect("there is something to delete");
                assert!(
                    !object.is_deleting() && object.uid() == uid,
                    "deleted what was not read"
                );
                self.unsent.remove(&uid);
                self.delete();
                self.ours.insert(uid.clone());
                if crash == Crash::Between {
                    self.kill();
                    return true;
                }
                self.put(retry::deleted(&self.status, &uid, now))
            }
            TransitionStep::Confirm => self.put(retry::deleted(&self.status, &uid, now)),
            TransitionStep::Block(blocked) => self.put(retry::blocked(&self.status, &uid, &blocked, now)),
            TransitionStep::Create => {
                if self.refuses {
                    return self.refused(&uid);
                }
                let predecessor = Predecessor::stored(transition, NAMESPACE).expect("it was prepared");
                let succession = Succession {
                    rule: &self.rule,
                    attempt: transition.to,
                    of: &uid,
                    feedback: transition.feedback.as_deref(),
                };
                let to = transition.to;
                let new = successor(RetriedKind::Workload, &predecessor, &succession);
                assert!(self.create(new), "there was room");
                let made = self.object.as_ref().expect("just made").uid();
                if let Some((_, before)) = self.made.insert(uid.clone(), (to, made)) {
                    // Killed before it recorded the creation, and deleted by a user meanwhile: not distinguishable.
                    let unknown = self.crashed && self.theirs.contains(&before);
                    assert!(unknown, "{uid} got two successors");
                }
                if crash == Crash::Between {
                    self.kill();
                    return true;
                }
                let made = self.object.as_ref().expect("just made").uid();
                self.put(retry::closed(&self.status, &uid, &made, now))
            }
            TransitionStep::Close(made) => self.put(retry::closed(&self.status, &uid, &made, now)),
            TransitionStep::Stop(why) => {
                self.unsent.remove(&uid);
                self.put(retry::stopped(&self.status, &uid, why, now))
            }
        }
    }

    fn refused(&mut self, uid: &str) -> bool {
        let blocked: Blocked = serde_json::from_value(
            json!({"reason": "SuccessorRefused", "message": "denied", "time": self.now.to_string()}),
        )
        .expect("it is well-formed");
        self.put(retry::blocked(&self.status, uid, &blocked, self.now))
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::End {
                succeeds,
                infrastructure,
            } => {
                self.touch();
                let Some(object) = self.object.as_mut().filter(|object| !object.is_deleting()) else {
                    return;
                };
                if matches!(object.value["status"]["phase"].as_str(), None | Some("Dispatched")) {
                    let phase = if *succeeds { "Completed" } else { "Failed" };
                    let reason = if *infrastructure {
                        "CloneFailed"
                    } else {
                        "MaxTurnsExhausted"
                    };
                    object.value["status"] = json!({"phase": phase, "reason": reason});
                    let uid = object.uid();
                    self.ends.insert(uid);
                }
            }
            Act::Revive => {
                self.touch();
                let object = self.object.as_mut().filter(|object| !object.is_deleting());
                if let Some(object) = object.filter(|object| object.value["status"]["phase"] == "Failed") {
                    object.value["status"] = json!({"phase": "Dispatched"});
                }
            }
            Act::Touch => self.touch(),
            Act::Delete => {
                if let Some(object) = self.object.clone().filter(|object| !object.is_deleting()) {
                    self.theirs.insert(object.uid());
                    self.delete();
                }
            }
            Act::Create => {
                let made = self.create(json!({"apiVersion": "foreman.llmkube.dev/v1alpha1", "kind": "Workload",
                        "metadata": {"name": "wl", "namespace": NAMESPACE}, "spec": {"repo": "a/b", "issues": [7]}}));
                if made {
                    let away = self.ours.iter().filter(|uid| !self.made.contains_key(*uid));
                    self.replaced.extend(away.cloned());
                }
            }
            Act::Wedge(on) => {
                if let Some(object) = &mut self.object {
                    object.finalizer = *on;
                    if !on && object.is_deleting() {
                        self.object = None;
                    }
                }
            }
            Act::Linger(on) => self.lingers = *on,
            Act::Refuse(on) => self.refuses = *on,
            Act::Step(crash) => {
                self.step(*crash);
            }
            Act::Wait(seconds) => self.now += SignedDuration::from_secs(i64::from(*seconds)),
            Act::Limit(limit) => {
                self.rule.max_attempts = *limit;
                self.limit_changed = true;
            }
            Act::Ask { reset } => {
                let Some(object) = &self.object else { return };
                let retried = Retried::of(RetriedKind::Workload, &object.value).expect("a Workload");
                if self.retry_status().transition.is_some() || !retried.is_tombstone() {
                    return;
                }
                let run = retried.run();
                self.asked = Some(RetryOrder {
                    kind: run.kind,
                    name: run.name,
                    uid: run.uid,
                    from_attempt: None,
                    reset: *reset,
                    with_feedback: false,
                });
                self.by_user = true;
            }
        }
        self.check();
    }

    /// What holds at every moment.
    fn check(&self) {
        let mut seen: Vec<_> = self.status.attempts.iter().map(|attempt| &attempt.uid).collect();
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all, "a run is recorded twice");
        for attempt in &self.status.attempts {
            assert!(self.ends.contains(&attempt.uid), "{attempt:?} never ended");
        }
        for (of, (number, _)) in &self.made {
            assert!(
                (self.ours.contains(of) && !self.theirs.contains(of)) || self.crashed,
                "{of} got a successor although a user deleted it"
            );
            if !self.by_user && !self.limit_changed {
                assert!(
                    *number <= self.rule.max_attempts,
                    "attempt {number} of {}",
                    self.rule.max_attempts
                );
            }
        }
    }

    /// Lets the controller go on until it has nothing to do; it may not spin.
    fn settle(&mut self) {
        for _ in 0..100 {
            if !self.step(Crash::No) {
                return;
            }
            self.check();
        }
        unreachable!("it does not become idle: {:#?}", self.status.retry);
    }

    /// What holds once nothing blocks the controller.
    fn check_idle(&mut self) {
        self.act(&Act::Refuse(false));
        self.act(&Act::Linger(false));
        self.act(&Act::Wedge(false));
        for _ in 0..4 {
            self.settle();
            self.now += SignedDuration::from_secs(600);
        }
        let status = self.retry_status();
        assert_eq!(status.transition, None, "a retry hangs");
        for uid in &self.ours {
            assert!(
                self.made.contains_key(uid) || self.replaced.contains(uid),
                "{uid} was deleted, and is lost"
            );
        }
        if let Some(object) = self
            .object
            .as_ref()
            .filter(|object| object.value["status"]["phase"] == "Failed")
        {
            let condition = retry::condition(&self.status).expect("it says what becomes of it");
            let at_limit = GivenUp::is_limit(&condition.reason);
            assert!(
                at_limit,
                "{} stays without being at its limit: {condition:?}",
                object.uid()
            );
            assert!(
                self.status.attempts.iter().any(|attempt| attempt.uid == object.uid()),
                "its end was lost"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8_000))]

    #[test]
    fn whatever_happens_what_we_delete_is_made_again_once(
        limit in 1..4u32, acts in proptest::collection::vec(act(), 1..80),
    ) {
        let mut world = World::new(limit);
        for act in &acts {
            world.act(act);
        }
        world.check_idle();
    }

    /// Killed after each half of each step, without other writers: as many runs as there may be, numbered one by one.
    #[test]
    fn killed_anywhere_the_numbers_have_no_gap(
        limit in 1..5u32, crashes in proptest::collection::vec(
            prop_oneof![Just(Crash::No), Just(Crash::Before), Just(Crash::Between), Just(Crash::After)], 0..60),
    ) {
        let mut world = World::new(limit);
        let mut crashes = crashes.into_iter();
        for _ in 0..limit + 2 {
            world.act(&Act::End { succeeds: false, infrastructure: false });
            for crash in crashes.by_ref().take(10) {
                world.act(&Act::Step(crash));
                world.act(&Act::Wait(61));
            }
            for _ in 0..4 {
                world.settle();
                world.act(&Act::Wait(90));
                world.now += SignedDuration::from_secs(600);
            }
        }
        let numbers: Vec<_> = world.made.values().map(|(number, _)| *number).collect();
        let expected: Vec<_> = (2..=limit).collect();
        prop_assert_eq!(numbers, expected);
        prop_assert_eq!(world.status.attempts.len(), limit as usize);
        prop_assert_eq!(world.retry_status().attempt, limit);
    }
}

proptest! {
    /// Whatever the annotation and the status have: each number that is stored fits into the status, as it is.
    #[test]
    fn every_number_fits_into_the_status(stated in any::<u64>(), known in any::<u32>(), limit in 1..=i32::MAX.unsigned_abs()) {
        let failed = json!({
            "metadata": {"name": "wl", "uid": "u", "resourceVersion": "1",
                "annotations": {"foreman.llmkube.dev/attempt": stated.to_string()}},
            "status": {"phase": "Failed"},
        });
        let retried = Retried::of(RetriedKind::Workload, &failed).unwrap();
        let rule = serde_json::from_value(json!({"maxAttempts": limit})).unwrap();
        for uid in ["u", "v"] {
            let mut status = status_of(known, "Work");
            let number = attempt_number(&status, uid, retried.stated_attempt(PREFIX));
            prop_assert!((1..=MAX_ATTEMPT).contains(&number), "{}", number);
            status.attempt = number;
            if let FailedRunAction::Begin(transition) = action_of(&failed, &status, &rule, 0) {
                prop_assert!((1..=MAX_ATTEMPT).contains(&transition.to), "{}", transition.to);
            }
        }
    }
}

fn action_of(
    object: &Value,
    status: &RetryStatus,
    rule: &RetryPolicy,
    infrastructure_failures: u32,
) -> FailedRunAction {
    failed_run_action(&FailedRunContext {
        object: Retried::of(RetriedKind::Workload, object).expect("a Workload"),
        status,
        asked: None,
        rule: Some(("p", Mode::Enforce, rule)),
        cause: None,
        infrastructure_failures,
        settles: None,
        source: None,
        now: Timestamp::from_second(1_800_000_000).expect("a time that exists"),
    })
}

fn status_of(attempt: u32, class: &str) -> RetryStatus {
    serde_json::from_value(json!({
        "attempt": attempt, "run": {"kind": "Workload", "name": "wl", "uid": "u"},
        "failure": {"class": class, "reason": "X", "time": "2026-11-21T00:00:00Z"},
    }))
    .expect("a status")
}

/// What the number and the class of a failure lead to.
#[test]
fn number_and_class_decide() {
    let failed = json!({"metadata": {"name": "wl", "uid": "u", "resourceVersion": "1"}, "status": {"phase": "Failed"}});
    let rule: RetryPolicy = serde_json::from_value(json!({"maxAttempts": 3, "maxInfrastructureFailures": 2})).unwrap();
    for (attempt, class, infrastructure, expected) in [
        (1, "Work", 0, Ok((1, 2))),
        (2, "Work", 0, Ok((2, 3))),
        (3, "Work", 0, Err("MaxAttemptsReached")),
        (9, "Work", 0, Err("MaxAttemptsReached")),
        (0, "Work", 0, Ok((1, 2))),
        (1, "Infrastructure", 1, Ok((1, 1))),
        (3, "Infrastructure", 1, Ok((3, 3))),
        (4, "Infrastructure", 1, Err("MaxAttemptsReached")),
        (1, "Infrastructure", 2, Err("MaxInfrastructureFailuresReached")),
        (1, "Human", 0, Err("NeedsHuman")),
        (1, "Obsolete", 0, Err("SourceClosed")),
    ] {
        let found = match action_of(&failed, &status_of(attempt, class), &rule, infrastructure) {
            FailedRunAction::Begin(transition) => Ok((transition.from, transition.to)),
            FailedRunAction::GiveUp(why) => Err(why.reason()),
            other => unreachable!("{other:?}"),
        };
        assert_eq!(found, expected, "attempt {attempt}, {class}, {infrastructure} in a row");
    }
}

/// An object that has not failed, is being deleted, or belongs to the bridge is skipped.
#[test]
fn only_failed_runs_are_retried() {
    let rule = |extra: Value| {
        let mut rule = json!({"maxAttempts": 3});
        json_patch::merge(&mut rule, &extra);
        serde_json::from_value::<RetryPolicy>(rule).unwrap()
    };
    let object = |phase: &str, extra: &Value| {
        let mut object = json!({"metadata": {"name": "wl", "uid": "u"}, "status": {"phase": phase}});
        json_patch::merge(&mut object, extra);
        object
    };
    let bridge = json!({"metadata": {"labels": {"created-by": "dispatch-bridge-prfix"}}});
    let leaving = json!({"metadata": {"deletionTimestamp": "2026-11-21T00:00:00Z"}});
    for (object, rule, touched) in [
        (object("Failed", &json!({})), rule(json!({})), true),
        (object("Completed", &json!({})), rule(json!({})), false),
        (object("Dispatched", &json!({})), rule(json!({})), false),
        (object("", &json!({})), rule(json!({})), false),
        (object("Wedged", &json!({})), rule(json!({})), false),
        (object("Failed", &leaving), rule(json!({})), false),
        (object("Failed", &bridge), rule(json!({})), false),
        (object("Failed", &bridge), rule(json!({"takeOver": true})), true),
    ] {
        let step = action_of(&object, &RetryStatus::default(), &rule, 0);
        assert_eq!(step == FailedRunAction::Record, touched, "{object}: {step:?}");
    }
}

/// A successor that another client deletes while it runs does not count: the next object has its number.
#[test]
fn a_successor_that_is_deleted_while_it_runs_does_not_count() {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let status = |attempt: u32, extra: Value| {
        let mut retry = json!({"attempt": attempt, "run": {"kind": "Workload", "name": "wl", "uid": "u"}});
        json_patch::merge(&mut retry, &extra);
        serde_json::from_value::<WorkItemStatus>(json!({"consecutiveFailures": 1, "retry": retry})).unwrap()
    };
    let running = status(2, json!({}));
    let deleted = retry::successor_deleted(&running, "u", now).unwrap();
    let retry = deleted.retry.clone().unwrap();
    assert_eq!((retry.attempt, retry.run.clone()), (1, None));
    assert_eq!(
        attempt_number(&retry, "v", 1),
        2,
        "the number of the run that was deleted"
    );
    assert_eq!(deleted.consecutive_failures, 1, "no failure");
    let condition = retry::condition(&deleted).unwrap();
    assert_eq!(condition.reason, "DeletedExternally");
    assert!(
        condition.message.contains("Workload wl (attempt 2)"),
        "{}",
        condition.message
    );
    assert_eq!(retry::successor_deleted(&deleted, "u", now), None, "recorded once");
    let mut ended = running.clone();
    ended.attempts = serde_json::from_value(json!([{"uid": "u", "name": "wl", "outcome": "Failed"}])).unwrap();
    for (other, why) in [
        (ended, "its end is recorded"),
        (status(0, json!({})), "it succeeded"),
        (
            status(
                2,
                json!({"failure": {"class": "Work", "reason": "X", "time": "2026-11-21T00:00:00Z"}}),
            ),
            "it failed",
        ),
        (status(2, json!({"run": {"uid": "v"}})), "another object"),
    ] {
        assert_eq!(retry::successor_deleted(&other, "u", now), None, "{why}");
    }
}

/// A Workload that failed, was repaired and runs again under the same UID fails anew, for its own reason.
#[test]
fn a_further_end_of_the_same_object_is_classified_anew() {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let object = |phase: &str| json!({"metadata": {"name": "wl", "uid": "u", "resourceVersion": "1"}, "status": {"phase": phase}});
    let failed = object("Failed");
    let rule: RetryPolicy = serde_json::from_value(json!({"maxAttempts": 3})).unwrap();
    let cause = |class, reason: &str| FailureCause {
        class,
        reason: reason.to_owned(),
    };
    let (unplanned, declined) = (
        cause(FailureClass::Human, "AgentResolveFailed"),
        cause(FailureClass::Work, "NOGO"),
    );
    let end = |status: &WorkItemStatus, cause: &FailureCause| {
        let run = Retried::of(RetriedKind::Workload, &failed).unwrap().run();
        let attempt = json!({"uid": "u", "name": "wl", "outcome": cause.outcome(), "reason": cause.reason});
        retry::failed(status, &run, 1, serde_json::from_value(attempt).unwrap(), cause, now)
    };
    let action = |status: &WorkItemStatus, cause: &FailureCause| {
        failed_run_action(&FailedRunContext {
            object: Retried::of(RetriedKind::Workload, &failed).unwrap(),
            status: status.retry.as_ref().unwrap(),
            asked: None,
            rule: Some(("p", Mode::Enforce, &rule)),
            cause: Some(cause),
            infrastructure_failures: 0,
            settles: None,
            source: None,
            now: now + SignedDuration::from_hours(1),
        })
    };
    let first = end(&WorkItemStatus::default(), &unplanned).unwrap();
    assert_eq!(action(&first, &unplanned), FailedRunAction::GiveUp(GivenUp::Human));
    assert_eq!(end(&first, &unplanned), None, "recorded once");
    for (phase, revived) in [
        ("Planning", false),
        ("Planned", true),
        ("Dispatched", true),
        ("Failed", false),
    ] {
        let object = object(phase);
        let found = Retried::of(RetriedKind::Workload, &object).unwrap().is_revived();
        assert_eq!(found, revived, "{phase}");
    }
    let running = retry::revived(&first, "u", now).unwrap();
    assert_eq!(running.retry.as_ref().unwrap().failure, None);
    assert_eq!(retry::condition(&running).unwrap().reason, "NotFailedAnyMore");
    assert_eq!(retry::revived(&running, "u", now), None, "recorded once");
    assert_eq!(retry::revived(&first, "v", now), None, "another object");
    // Also where taskgate did not see it run.
    for before in [&running, &first] {
        assert_eq!(action(before, &declined), FailedRunAction::Record);
        let second = end(before, &declined).unwrap();
        assert_eq!(second.attempts.len(), 1, "the history names the last end");
        assert_eq!(second.attempts[0].reason.as_deref(), Some("NOGO"));
        assert_eq!(second.retry.as_ref().unwrap().attempt, 1);
        assert!(matches!(action(&second, &declined), FailedRunAction::Begin(_)));
    }
}

/// A run beyond the limit, which a user began, is not the sixth of one.
#[test]
fn a_run_beyond_the_limit_is_named_so() {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    for (attempt, expected) in [
        (1, "at attempt 1 of 1 and"),
        (6, "at attempt 6, beyond the limit of 1, and"),
    ] {
        let status = WorkItemStatus {
            retry: Some(status_of(attempt, "Work")),
            ..WorkItemStatus::default()
        };
        let why = GivenUp::Attempts { attempt, limit: 1 };
        let status = retry::gave_up(&status, "u", why, now).unwrap();
        let message = &retry::condition(&status).unwrap().message;
        assert!(message.contains(expected), "{message}");
    }
}

/// The higher of status and annotation wins; a further object of an item is a further run.
#[test]
fn the_number_of_a_run() {
    let known = |attempt| status_of(attempt, "Work");
    for (status, uid, stated, expected) in [
        (RetryStatus::default(), "u", 1, 1),
        (RetryStatus::default(), "u", 3, 3),
        (known(2), "u", 1, 2),
        (known(2), "u", 5, 5),
        (known(2), "v", 1, 3),
        (known(2), "v", 9, 9),
        (known(0), "u", 1, 1),
        (known(MAX_ATTEMPT), "u", 1, MAX_ATTEMPT),
        (known(MAX_ATTEMPT), "v", 1, MAX_ATTEMPT),
        (known(1), "u", u32::MAX, MAX_ATTEMPT),
    ] {
        assert_eq!(
            attempt_number(&status, uid, stated),
            expected,
            "{} {uid} {stated}",
            status.attempt
        );
    }
}

/// A run whose source is closed is not retried, and its source is not read again; any other answer changes nothing.
#[test]
fn only_a_closed_source_prevents_a_retry() {
    let object = |spec: Value| json!({"metadata": {"name": "wl", "uid": "u", "resourceVersion": "1"}, "spec": spec, "status": {"phase": "Failed"}});
    let known = object(json!({"repo": "acme/app", "issues": [7]}));
    let unknown = object(json!({"intent": "fix it"}));
    let asking: RetryPolicy = serde_json::from_value(json!({"maxAttempts": 3, "source": {}})).unwrap();
    let silent: RetryPolicy = serde_json::from_value(json!({"maxAttempts": 3})).unwrap();
    let step = |object: &Value, rule: &RetryPolicy, attempt: u32, source: Option<SourceState>| {
        let mut status = status_of(attempt, "Work");
        status.failure.as_mut().unwrap().time = Time(Timestamp::UNIX_EPOCH);
        failed_run_action(&FailedRunContext {
            object: Retried::of(RetriedKind::Workload, object).unwrap(),
            status: &status,
            asked: None,
            rule: Some(("p", Mode::Enforce, rule)),
            cause: None,
            infrastructure_failures: 0,
            settles: None,
            source,
            now: Timestamp::from_second(1_800_000_000).unwrap(),
        })
    };
    let begins = |step: &FailedRunAction| matches!(step, FailedRunAction::Begin(_));
    let FailedRunAction::ReadSource(origin) = step(&known, &asking, 1, None) else {
        unreachable!("it is asked first")
    };
    assert_eq!(
        (origin.repository.as_deref(), origin.numbers.as_slice()),
        (Some("acme/app"), [7].as_slice())
    );
    let closed = Some(SourceState::Closed);
    assert_eq!(
        step(&known, &asking, 1, closed),
        FailedRunAction::GiveUp(GivenUp::Obsolete)
    );
    for state in [SourceState::Open, SourceState::Unknown] {
        assert!(begins(&step(&known, &asking, 1, Some(state))), "{state:?}");
    }
    assert!(begins(&step(&unknown, &asking, 1, None)), "nothing to ask about");
    assert!(
        begins(&step(&known, &silent, 1, None)),
        "the policy does not read sources"
    );
    assert!(matches!(
        step(&known, &asking, 3, None),
        FailedRunAction::GiveUp(GivenUp::Attempts { .. })
    ));

    let status = WorkItemStatus {
        retry: Some(status_of(1, "Work")),
        ..WorkItemStatus::default()
    };
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let recorded = retry::gave_up(&status, "u", GivenUp::Obsolete, now).unwrap();
    let status = recorded.retry.clone().unwrap();
    assert_eq!(status.failure.unwrap().class, FailureClass::Obsolete);
    assert_eq!(
        retry::gave_up(&recorded, "u", GivenUp::Obsolete, now),
        None,
        "recorded once"
    );
}

/// A policy that is not enforced only reports.
#[test]
fn a_policy_that_is_not_enforced_only_reports() {
    let failed = json!({"metadata": {"name": "wl", "uid": "u"}, "status": {"phase": "Failed"}});
    let rule: RetryPolicy = serde_json::from_value(json!({"maxAttempts": 3})).unwrap();
    let status = status_of(1, "Work");
    for mode in [Mode::Observe, Mode::Warn] {
        let step = failed_run_action(&FailedRunContext {
            asked: None,
            object: Retried::of(RetriedKind::Workload, &failed).unwrap(),
            status: &status,
            rule: Some(("p", mode, &rule)),
            cause: None,
            infrastructure_failures: 0,
            settles: None,
            source: None,
            now: Timestamp::from_second(1_800_000_000).unwrap(),
        });
        assert_eq!(step, FailedRunAction::GiveUp(GivenUp::OnlyObserved { to: 2 }));
    }
}

#[test]
fn the_backoff_grows_and_is_waited_for() {
    let failed = json!({"metadata": {"name": "wl", "uid": "u"}, "status": {"phase": "Failed"}});
    let rule: RetryPolicy =
        serde_json::from_value(json!({"maxAttempts": 9, "backoff": {"initial": "10s", "max": "1m"}})).unwrap();
    let start: Timestamp = "2026-11-21T00:00:00Z".parse().unwrap();
    for (attempt, seconds) in [(1, 10), (2, 20), (3, 40), (4, 60), (8, 60)] {
        let action = |status: &RetryStatus, rule: Option<&RetryPolicy>| {
            failed_run_action(&FailedRunContext {
                asked: None,
                object: Retried::of(RetriedKind::Workload, &failed).unwrap(),
                status,
                rule: rule.map(|rule| ("p", Mode::Enforce, rule)),
                cause: None,
                infrastructure_failures: 0,
                settles: None,
                source: None,
                now: start,
            })
        };
        let status = status_of(attempt, "Work");
        assert_eq!(action(&status, None), FailedRunAction::Nothing, "nothing was announced");
        let step = action(&status, Some(&rule));
        let FailedRunAction::Schedule(next) = step else {
            unreachable!("{step:?}")
        };
        assert_eq!((next.to, next.limit), (attempt + 1, 9));
        let status = WorkItemStatus {
            retry: Some(status),
            ..WorkItemStatus::default()
        };
        let status = retry::scheduled(&status, "u", next, start).unwrap();
        let condition = retry::condition(&status).unwrap();
        let announced = format!(
            "at attempt {attempt} of 9 and runs again as attempt {} at {}",
            attempt + 1,
            next.due
        );
        assert_eq!(condition.reason, "BackingOff");
        assert!(condition.message.ends_with(&announced), "{}", condition.message);
        assert_eq!(retry::scheduled(&status, "u", next, start), None, "recorded once");
        let recorded = status.retry.clone().unwrap();
        let FailedRunAction::Wait(until) = action(&recorded, Some(&rule)) else {
            unreachable!("it is recorded")
        };
        assert_eq!(action(&recorded, None), FailedRunAction::GiveUp(GivenUp::Unwanted));
        let gone = retry::gave_up(&status, "u", GivenUp::Unwanted, start).unwrap();
        assert_eq!(retry::condition(&gone).unwrap().reason, "PolicyGone");
        assert_eq!(action(&gone.retry.unwrap(), None), FailedRunAction::Nothing);
        let waited = until.duration_since(start).as_secs();
        assert!(
            (seconds * 9 / 10..=seconds * 11 / 10).contains(&waited),
            "{attempt}: {waited}"
        );
    }
}
