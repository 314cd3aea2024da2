//! The messages of the circuit breaker: for a Task that it denies, and for a Job that it stops.

use taskgate_api::Mode;

use super::{BreakerRefusal, Detail, Reason};
use crate::kubernetes::{MAX_MESSAGE, clip};

/// How much room the names of an item and of its policy get before the whole command that explains them, in characters.
const LONG_NAMES: usize = 64;
/// The same, before its name alone.
const SHORT_NAMES: usize = 20;

impl Reason {
    /// The fixed parts come first; the names of item and policy share the characters that are left.
    pub(crate) fn breaker_message(&self) -> Option<String> {
        let (open, denied, would) = match &self.detail {
            Detail::JobStopped(inner) => (&**inner, "stopped: ", "would stop: "),
            other => (other, "", "would deny: "),
        };
        let Detail::BreakerOpen {
            item,
            work_item,
            namespace,
            since,
            cost_usd,
            ..
        } = open
        else {
            return None;
        };
        let verb = if self.mode == Mode::Enforce { denied } else { would };
        let count = count(open)?;
        let since = since
            .map(|since| format!(" since {}", since.strftime("%FT%RZ")))
            .unwrap_or_default();
        let cost = cost_usd
            .as_ref()
            .map(|cost| format!(", cost ${}", clip(cost, 12)))
            .unwrap_or_default();
        let reset = format!("; reset: kubectl -n {namespace} delete wi {work_item}");
        let fixed = format!("taskgate: {verb}item {count}{since}{cost}, by {reset}");
        let room = MAX_MESSAGE.saturating_sub(fixed.chars().count());
        let policy = self.policy.as_ref().map(ToString::to_string).unwrap_or_default();
        let names = item.chars().count() + policy.chars().count();
        let explain = explain(namespace, work_item, room, names);
        let room = room.saturating_sub(explain.chars().count());
        let item = clip(item, room / 2);
        let policy = clip(&policy, room - item.chars().count().min(room));
        Some(clip(
            &format!("taskgate: {verb}item {item}{count}{since}{cost}, by {policy}{reset}{explain}"),
            MAX_MESSAGE,
        ))
    }
}

/// The command that explains the item, in its longest form that fits into `room` characters beside the names of item and
/// policy, which have `names` characters.
fn explain(namespace: &str, work_item: &str, room: usize, names: usize) -> String {
    let forms = [
        (
            format!("; why: taskgate explain item/{work_item} -n {namespace}"),
            LONG_NAMES,
        ),
        (format!("; why: taskgate explain item/{work_item}"), LONG_NAMES),
        ("; why: taskgate explain".to_owned(), SHORT_NAMES),
    ];
    let fits = |(form, least): &(String, usize)| form.chars().count() + names.min(*least) <= room;
    let fitting = forms.into_iter().find(fits);
    fitting.map(|(form, _)| form).unwrap_or_default()
}

/// What happened to the item, in numbers.
fn count(open: &Detail) -> Option<String> {
    let Detail::BreakerOpen {
        failures,
        limit,
        refusal,
        ..
    } = open
    else {
        return None;
    };
    let failed = match failures {
        0 => String::new(),
        1 => " failed once".to_owned(),
        failures => format!(" failed {failures} times in a row"),
    };
    Some(match refusal {
        BreakerRefusal::Failures => format!("{failed} (limit {limit})"),
        BreakerRefusal::OpenedManually => " was opened manually".to_owned(),
        BreakerRefusal::Infrastructure { failures, limit } => {
            format!(" was failed by the cluster {failures} times (limit {limit})")
        }
        BreakerRefusal::Active(active) if *failures == 0 => format!(" has {active} Tasks under way (limit {limit})"),
        BreakerRefusal::Active(active) => format!("{failed}, {active} more Tasks under way (limit {limit})"),
        BreakerRefusal::Probe => format!("{failed} (limit {limit}), its probe is under way"),
        BreakerRefusal::Backoff(until) => {
            format!("{failed}, next attempt at {}", until.strftime("%FT%TZ"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PolicyName, Section};

    fn open(item: &str, namespace: &str, policy: &str) -> Reason {
        Reason {
            section: Section::FailurePolicy,
            policy: Some(PolicyName::Cluster { name: policy.into() }),
            mode: Mode::Enforce,
            detail: Detail::BreakerOpen {
                item: item.into(),
                work_item: format!("{}-0123456789", "w".repeat(40)),
                namespace: namespace.into(),
                failures: 3,
                limit: 3,
                refusal: BreakerRefusal::Failures,
                since: Some("2026-11-20T10:00:00Z".parse().unwrap()),
                cost_usd: Some("1.50".into()),
            },
        }
    }

    #[test]
    fn a_denial_states_item_policy_count_time_cost_and_reset() {
        let mut short = open("42", "team-a", "agents");
        let Detail::BreakerOpen { work_item, .. } = &mut short.detail else {
            unreachable!()
        };
        "fixer-42-e13156ca85".clone_into(work_item);
        assert_eq!(
            short.message(),
            "taskgate: item 42 failed 3 times in a row (limit 3) since 2026-11-20T10:00Z, cost $1.50, by \
             ClusterTaskPolicy/agents; reset: kubectl -n team-a delete wi fixer-42-e13156ca85; why: taskgate explain \
             item/fixer-42-e13156ca85 -n team-a"
        );
    }

    #[test]
    fn however_long_the_names_the_way_out_is_whole() {
        for (item, namespace, policy, explained) in [
            ("42", "team-a", "agents", "; why: taskgate explain"),
            (&*"i".repeat(500), &*"n".repeat(63), &*"p".repeat(253), ""),
            (
                &*"i".repeat(500),
                &*"n".repeat(40),
                &*"p".repeat(253),
                "; why: taskgate explain",
            ),
        ] {
            let message = open(item, namespace, policy).message();
            assert!(message.chars().count() <= MAX_MESSAGE, "{}", message.chars().count());
            assert!(message.ends_with(&format!("-0123456789{explained}")), "{message}");
            assert!(message.contains(&item[..2]), "{message}");
            assert!(message.contains("ClusterTas"), "{message}");
        }
    }
}
