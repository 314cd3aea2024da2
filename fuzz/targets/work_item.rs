//! An untrusted status of a WorkItem, and the next action that the controller derives from it.
//!
//! The input is `{"status": …, "kind": "Task" or "Workload", "object": …, "found": …, "retry": RetryPolicy, "failure":
//! FailurePolicy, "order": RetryOrder as text, "children": […], "left": […], "now": time}`. All but `status` may be missing.
//! The API server accepts every written status.

#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use taskgate_api::{
    Mode, WorkItemStatus,
    retry_status::{RetryOrder, RetryStage, Transition},
    task_policy::{FailurePolicy, RetriedKind, RetryPolicy},
};
use taskgate_fuzz::{init, json, rules};
use taskgate_policy::{
    Ending, Retrying, RunObjects, TaskAction, TaskContext, TaskState, allowance, attempt, breaker_state, classify, fit,
    minimal, next_action, next_attempt, record, refresh, reset, reset_by,
    retry::{
        self, FailedRunAction, FailedRunContext, FailureCause, MAX_FEEDBACK, NamedObject, Predecessor, Prepared,
        Retried, Succession, TransitionContext, TransitionStep, attempt_number, failed_run_action, successor,
        task_feedback, transition_step, workload_failure, workload_feedback,
    },
};

struct Input<'a> {
    status: &'a WorkItemStatus,
    /// Whether the API server would take the status and the object.
    valid: bool,
    object: &'a Value,
    found: Option<&'a Value>,
    kind: RetriedKind,
    retry: Option<&'a RetryPolicy>,
    failure: Option<&'a FailurePolicy>,
    order: Option<&'a RetryOrder>,
    children: &'a [Value],
    left: Option<&'a [String]>,
    now: Timestamp,
}

impl Input<'_> {
    /// The stored form of a status.
    fn written(&self, next: &WorkItemStatus) -> WorkItemStatus {
        let fitted = fit(next);
        for written in [&fitted, &minimal(next)] {
            let errors = rules::status_errors(written);
            assert!(errors.is_empty(), "{errors:?}");
        }
        fitted
    }

    /// Applies a step twice: the second time it changes nothing.
    fn twice(&self, step: impl Fn(&WorkItemStatus) -> Option<WorkItemStatus>) -> Option<WorkItemStatus> {
        let stored = self.written(&step(self.status)?);
        if self.valid {
            assert_eq!(step(&stored), None, "the second time");
        }
        Some(stored)
    }

    fn breaker(&self) {
        let Self { status, now, .. } = *self;
        if self.valid {
            // Times are stored in whole seconds.
            assert_eq!(json!(fit(status)), json!(status), "a valid status is unchanged");
        }
        for next in [
            reset(status, "TombstoneDeleted", None, now),
            refresh(status, self.failure, now),
            reset_by(status, "ann", "it works again", now),
        ] {
            next.iter().for_each(|next| drop(self.written(next)));
        }
        self.twice(|status| reset(status, "TombstoneDeleted", Some("task-uid"), now));
        if let Some(failure) = self.failure {
            breaker_state(status, failure, now);
            allowance(status, failure, now);
            next_attempt(status, failure);
        }
        let Some(state) = TaskState::of(self.object) else {
            return;
        };
        for mode in [Mode::Observe, Mode::Enforce] {
            for retrying in [Retrying::No, Retrying::Keeps, Retrying::Deletes] {
                let step = next_action(&TaskContext {
                    task: &state,
                    others: std::slice::from_ref(&state),
                    rule: self.failure.map(|failure| (mode, failure)),
                    work_item: state.work_item.as_deref(),
                    item_status: Some(("item-uid", status)),
                    retrying,
                    abandoned: false,
                    now,
                });
                if let TaskAction::Refresh(next) = step {
                    self.written(&next);
                }
            }
        }
        let ending = classify(self.object, &state, RunObjects::default(), self.failure);
        let ended = attempt(self.object, &state, ending, now);
        self.twice(|status| record(status, ended.clone(), self.failure, now));
    }

    fn failed(&self, object: Retried<'_>) {
        let Self { status, now, .. } = *self;
        let retry = status.retry.clone().unwrap_or_default();
        let failure = workload_failure(object.object(), self.children);
        self.record(object, &failure);
        for mode in [Mode::Observe, Mode::Enforce] {
            let step = failed_run_action(&FailedRunContext {
                object,
                status: &retry,
                asked: self.order.map(|order| (order, "ann")),
                rule: self.retry.map(|rule| ("team/TaskPolicy/agents", mode, rule)),
                cause: None,
                infrastructure_failures: status.infrastructure_failures,
                settles: None,
                source: None,
                now,
            });
            match step {
                FailedRunAction::Schedule(next) => {
                    self.twice(|status| retry::scheduled(status, object.uid(), next, now));
                }
                FailedRunAction::GiveUp(why) => {
                    self.twice(|status| retry::gave_up(status, object.uid(), why, now));
                }
                FailedRunAction::Begin(transition) => {
                    self.twice(|status| retry::begun(status, &transition, now));
                }
                FailedRunAction::ReadSource(origin) => assert!((1..=20).contains(&origin.numbers.len())),
                FailedRunAction::Nothing | FailedRunAction::Wait(_) | FailedRunAction::Record => {}
            }
        }
        self.twice(|status| retry::run_deleted(status, object.uid(), now));
    }

    /// The recorded end of a run.
    fn record(&self, object: Retried<'_>, failure: &FailureCause) {
        let Self { status, now, .. } = *self;
        let retry = status.retry.clone().unwrap_or_default();
        let Some(state) = TaskState::of(object.object()) else {
            return;
        };
        let number = attempt_number(&retry, object.uid(), object.stated_attempt("foreman.llmkube.dev/"));
        let ending = Ending {
            outcome: failure.outcome(),
            reason: failure.reason.clone(),
        };
        let ended = attempt(object.object(), &state, ending, now);
        self.twice(|status| retry::failed(status, &object.run(), number, ended.clone(), failure, now));
        self.twice(|status| retry::succeeded(status, &object.run(), now, ended.clone(), now));
    }

    fn advance(&self, transition: &Transition) {
        let (uid, now) = (transition.old.uid.as_str(), self.now);
        let object = self.found.and_then(|found| Retried::of(transition.old.kind, found));
        let stored = Predecessor::stored(transition, "team");
        let invalid = match transition.step {
            RetryStage::Planned => None,
            RetryStage::Deleting | RetryStage::Deleted => stored.as_ref().err().copied(),
        };
        for unsent in [false, true] {
            for left in [None, self.left] {
                let step = transition_step(&TransitionContext {
                    transition,
                    found: NamedObject::of(object, transition),
                    wanted: self.retry.is_some(),
                    invalid,
                    unsent,
                    left,
                    now,
                });
                match step {
                    TransitionStep::Wait(_) | TransitionStep::ListRemains | TransitionStep::Delete => {}
                    TransitionStep::Prepare => object.into_iter().for_each(|object| self.prepare(transition, object)),
                    TransitionStep::Replan => drop(self.twice(|status| retry::replanned(status, uid, now))),
                    TransitionStep::Confirm => drop(self.twice(|status| retry::deleted(status, uid, now))),
                    TransitionStep::Block(blocked) => {
                        self.twice(|status| retry::blocked(status, uid, &blocked, now));
                    }
                    TransitionStep::Create => stored.iter().for_each(|kept| self.create(transition, kept)),
                    TransitionStep::Close(made) => drop(self.twice(|status| retry::closed(status, uid, &made, now))),
                    TransitionStep::Stop(why) => drop(self.twice(|status| retry::stopped(status, uid, why, now))),
                }
            }
        }
    }

    fn prepare(&self, transition: &Transition, object: Retried<'_>) {
        let feedback = match object.kind() {
            RetriedKind::Task => task_feedback(object.object(), "BackoffLimitExceeded"),
            RetriedKind::Workload => workload_feedback(self.children),
        };
        assert!(
            feedback
                .as_ref()
                .is_none_or(|text| text.chars().count() <= MAX_FEEDBACK)
        );
        let kept = Predecessor::of(object);
        let prepared = Prepared {
            resource_version: object.version().to_owned(),
            predecessor: kept.to_value(),
            feedback,
            children: Vec::new(),
        };
        let uid = transition.old.uid.as_str();
        self.twice(|status| retry::prepared(status, uid, &prepared, self.now));
        self.create(transition, &kept);
    }

    /// The created successor: the predecessor again, and nothing else.
    fn create(&self, transition: &Transition, predecessor: &Predecessor) {
        let rule = self.retry.cloned().unwrap_or_default();
        let succession = Succession {
            rule: &rule,
            attempt: transition.to,
            of: &transition.old.uid,
            feedback: transition.feedback.as_deref(),
        };
        let (before, after) = (
            predecessor.to_value(),
            successor(transition.old.kind, predecessor, &succession),
        );
        for same in [
            "/apiVersion",
            "/kind",
            "/metadata/name",
            "/metadata/namespace",
            "/metadata/ownerReferences",
        ] {
            assert_eq!(after.pointer(same), before.pointer(same), "{same}");
        }
        let of = after.pointer("/metadata/annotations/taskgate.dev~1retry-of");
        assert_eq!(of, Some(&succession.of.into()));
    }
}

fn read<T: DeserializeOwned>(input: &Value, field: &str) -> Option<T> {
    T::deserialize(input.get(field)?).ok()
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    json::mutate(data, size, max_size, seed, json::word)
});

fuzz_target!(init: init(), |data: &[u8]| -> Corpus {
    let Some(input) = json::parse(data) else { return Corpus::Reject };
    let Some(status) = read::<WorkItemStatus>(&input, "status") else { return Corpus::Reject };
    let (retry, failure) = (read::<RetryPolicy>(&input, "retry"), read::<FailurePolicy>(&input, "failure"));
    let order = read::<String>(&input, "order").and_then(|text| RetryOrder::parse(&text).ok());
    let (children, left) = (read::<Vec<Value>>(&input, "children"), read::<Vec<String>>(&input, "left"));
    let stored = rules::is_stored(&input["object"]);
    let input = Input {
        status: &status,
        valid: rules::status_errors(&status).is_empty() && stored,
        object: &input["object"],
        found: input.get("found").filter(|found| !found.is_null()),
        kind: read(&input, "kind").unwrap_or(RetriedKind::Task),
        retry: retry.as_ref(),
        failure: failure.as_ref(),
        order: order.as_ref(),
        children: children.as_deref().unwrap_or_default(),
        left: left.as_deref(),
        now: read(&input, "now").unwrap_or_else(|| Timestamp::constant(1_796_040_000, 0)),
    };
    input.breaker();
    if let Some(object) = Retried::of(input.kind, input.object) {
        if stored {
            rules::assert_admissible(&object.item());
        }
        input.failed(object);
    }
    if let Some(transition) = status.retry.as_ref().and_then(|retry| retry.transition.as_ref()) {
        input.advance(transition);
    }
    Corpus::Keep
});
