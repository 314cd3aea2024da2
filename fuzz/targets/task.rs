//! A Task, its Job, its pods and their untrusted status, and the attempt record in the WorkItem.
//!
//! The input is `{"task": …, "job": …, "pods": […], "children": […], "failure": FailurePolicy, "status": WorkItemStatus,
//! "workload": …, "queue": …, "now": time}`; all may be missing.

#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target};
use serde::de::DeserializeOwned;
use serde_json::Value;
use taskgate_api::{WorkItemStatus, kelos::Task, task_policy::FailurePolicy};
use taskgate_fuzz::{init, json, rules};
use taskgate_policy::{
    CancelContext, CancelTask, Cancellation, InstalledKueue, JobEnd, QueueContext, QueueObservation, RunObjects,
    TaskRun, TaskState, add_late_usage, announcement, attempt, cancel_step, classify, conclusion, fit, identify,
    minimal, queue_state, record,
    retry::{MAX_FEEDBACK, task_failure, task_feedback, workload_failure, workload_feedback},
};

fn read<T: DeserializeOwned>(input: &Value, field: &str) -> Option<T> {
    T::deserialize(input.get(field)?).ok()
}

/// The attempt record of the Task.
fn check_attempt(input: &Value, task: &Value, now: Timestamp) {
    let Some(state) = TaskState::of(task) else { return };
    let failure: Option<FailurePolicy> = read(input, "failure");
    let pods: Vec<Value> = read(input, "pods").unwrap_or_default();
    let evidence = RunObjects {
        job: input.get("job"),
        pods: &pods,
    };
    let ending = classify(task, &state, evidence, failure.as_ref());
    if let Some(failure) = task_failure(&ending) {
        assert!(!failure.reason.is_empty() && failure.reason.len() <= 64, "{failure:?}");
    }
    let feedback = task_feedback(task, &ending.reason);
    assert!(feedback.is_none_or(|text| text.chars().count() <= MAX_FEEDBACK));
    let before: WorkItemStatus = read(input, "status").unwrap_or_default();
    let ended = attempt(task, &state, ending, now);
    let check = |next: Option<WorkItemStatus>| {
        for written in next.iter().flat_map(|next| [fit(next), minimal(next)]) {
            let errors = rules::status_errors(&written);
            assert!(errors.is_empty(), "{errors:?}");
            // The attempt is recorded, or it would be recorded repeatedly.
            assert!(!rules::is_stored(task) || written.attempts.iter().any(|known| known.uid == state.uid));
        }
    };
    let recorded = record(&before, ended, failure.as_ref(), now);
    check(recorded.as_ref().and_then(|next| add_late_usage(next, task)));
    check(recorded);
    check(add_late_usage(&before, task));
}

fn cancel(task: &Value, job: Option<&Value>, now: Timestamp) {
    let cancellation = Cancellation::of(task);
    let job = job.map(|job| TaskRun::Job {
        end: JobEnd::of(job),
        deadline_set: false,
        deleting: false,
    });
    for run in [None, Some(TaskRun::Nothing), job] {
        cancel_step(&CancelContext {
            cancellation: &cancellation,
            task: CancelTask::of(task),
            run,
            wanted_again: false,
            now,
        });
    }
    assert!(conclusion(&cancellation).chars().count() <= 512);
    if let Some(stamp) = &cancellation.stamp {
        assert!(announcement(stamp, &cancellation).chars().count() <= 512);
    }
}

fn queue(input: &Value, job: &Value, now: Timestamp) {
    let look = queue_state(&QueueContext {
        job,
        workload: input.get("workload"),
        kueue: Some(InstalledKueue {
            since: now,
            local_queue: input.get("queue"),
            has_class: true,
            manages_namespace: Some(true),
        }),
        now,
    });
    if let QueueObservation::State(state) = look {
        // The limit of a condition's message.
        assert!(state.message.chars().count() <= 32_768);
    }
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    json::mutate(data, size, max_size, seed, json::word)
});

fuzz_target!(init: init(), |data: &[u8]| -> Corpus {
    let Some(input) = json::parse(data) else { return Corpus::Reject };
    let now = read(&input, "now").unwrap_or_else(|| Timestamp::constant(1_796_040_000, 0));
    let (task, job) = (&input["task"], input.get("job"));
    check_attempt(&input, task, now);
    cancel(task, job, now);
    if let Some(job) = job {
        queue(&input, job, now);
    }
    if let Some(item) = identify(Task::of(task)).filter(|_| rules::is_stored(task)) {
        rules::assert_admissible(&item);
    }
    let children: Vec<Value> = read(&input, "children").unwrap_or_default();
    let failure = workload_failure(&input["workload"], &children);
    assert!(!failure.reason.is_empty() && failure.reason.len() <= 64, "{failure:?}");
    let feedback = workload_feedback(&children);
    assert!(feedback.is_none_or(|text| text.chars().count() <= MAX_FEEDBACK));
    Corpus::Keep
});
