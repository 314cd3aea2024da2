//! The durations of a policy. The schema checks their form, but not how long they are.

use taskgate_api::{Duration, TaskPolicySpec, task_policy::Backoff};

use crate::Problem;

/// The durations of `spec` that nobody can reckon with.
pub(crate) fn problems(spec: &TaskPolicySpec) -> impl Iterator<Item = Problem> {
    let failure = spec.failure_policy.as_ref();
    let of_failure = failure.and_then(|section| section.backoff.as_ref());
    let of_retry = spec.retry.as_ref().and_then(|section| section.backoff.as_ref());
    let initial = |backoff: &Backoff| backoff.initial;
    let max = |backoff: &Backoff| backoff.max;
    [
        (
            "spec.failurePolicy.resetAfter",
            failure.and_then(|section| section.reset_after),
        ),
        ("spec.failurePolicy.backoff.initial", of_failure.map(initial)),
        ("spec.failurePolicy.backoff.max", of_failure.map(max)),
        ("spec.retry.backoff.initial", of_retry.map(initial)),
        ("spec.retry.backoff.max", of_retry.map(max)),
    ]
    .into_iter()
    .filter(|(_, duration)| duration.is_some_and(Duration::is_too_long))
    .map(|(field, _)| Problem {
        field: field.to_owned(),
        message: taskgate_api::InvalidDuration::TooLong.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use crate::Policy;
    use serde_json::json;

    #[test]
    fn a_duration_that_is_too_long_is_a_problem_of_its_policy() {
        let hours = format!("{}h", "9".repeat(30));
        let backoff = json!({"initial": hours, "max": hours});
        let spec = json!({
            "failurePolicy": {"resetAfter": hours, "backoff": backoff},
            "retry": {"maxAttempts": 2, "backoff": backoff},
        });
        let spec = serde_json::from_value(spec).unwrap();
        let problems = Policy::namespaced("team", "long", &spec).unwrap_err();
        let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "spec.failurePolicy.resetAfter",
                "spec.failurePolicy.backoff.initial",
                "spec.failurePolicy.backoff.max",
                "spec.retry.backoff.initial",
                "spec.retry.backoff.max",
            ]
        );
        assert_eq!(problems[0].message, "longer than 2562047h");
        let spec = json!({"failurePolicy": {"resetAfter": "2562047h"}});
        assert!(Policy::namespaced("team", "fits", &serde_json::from_value(spec).unwrap()).is_ok());
    }
}
