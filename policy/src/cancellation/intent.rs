//! Whether a policy wants a Task cancelled: `onSourceRemoved` and `onRetrigger`.
//!
//! Without an answer of the issue source, or after a single one, the Task is kept.

use cronexpr::{FallbackTimezoneOption, MakeTimestamp, ParseOptions, parse_crontab_with};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use taskgate_api::{
    Lenient as _, kelos, keys,
    metadata::Metadata,
    task_policy::{CancellationPolicy, Reaction},
};

use super::{Stamp, Trigger};
use crate::{issue_source::SourceItem, kubernetes::clip};

/// How many answers in a row, an interval apart, confirm that an item was removed.
const CONFIRMATIONS: u32 = 2;

/// The answer of the issue source about the Task's item.
#[derive(Clone, Copy, Debug)]
pub struct SourceObservation<'a> {
    /// The item; `None` when it does not exist any more.
    pub item: Option<&'a SourceItem>,
    /// Whether the spawner still finds it.
    pub discovered: bool,
    /// For how many answers in a row that has been so.
    pub in_a_row: u32,
}

/// The inputs of the decision whether a Task is to be cancelled.
#[derive(Clone, Copy, Debug)]
pub struct CancelIntentContext<'a> {
    /// The policy's section.
    pub rule: &'a CancellationPolicy,
    /// The Task, which is under way.
    pub object: &'a Value,
    /// `spec.when` of its spawner; null when that is not known.
    pub when: &'a Value,
    /// Whether its spawner is suspended: then there is no further run.
    pub suspended: bool,
    /// The answer of the issue source, if it was read.
    pub observation: Option<SourceObservation<'a>>,
    /// The name of a newer Task for the same item.
    pub newer: Option<&'a str>,
    /// What time it is.
    pub now: Timestamp,
}

/// The intent to cancel a Task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelIntent {
    /// The trigger.
    pub trigger: Trigger,
    /// The reason, as a sentence.
    pub reason: String,
    /// When it is due.
    pub deadline: Timestamp,
}

impl CancelIntent {
    /// The stamp of this intent, in the name of the spawner.
    pub fn stamp(&self, spawner: &str, now: Timestamp) -> Stamp {
        let by = format!("spawner:{spawner}");
        Stamp {
            deadline: self.deadline,
            ..Stamp::new(by, self.trigger, now, 0)
        }
    }
}

/// What a policy wants of a Task at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DesiredCancellation {
    /// Nothing.
    Keep,
    /// Nothing until this moment: requeue then.
    RequeueAt(Timestamp),
    /// Annotate this head of the pull request: the Task works on it.
    Baseline(String),
    /// The Task is to be cancelled.
    Cancel(CancelIntent),
}

/// Whether the policy wants the Task cancelled now.
pub fn desired_cancellation(context: &CancelIntentContext<'_>) -> DesiredCancellation {
    let grace = SignedDuration::from_secs(i64::from(context.rule.grace_period_seconds));
    let cancel = |trigger, reason| {
        let whole = Timestamp::from_second(context.now.as_second()).unwrap_or(context.now);
        let deadline = whole.checked_add(grace).unwrap_or(whole);
        DesiredCancellation::Cancel(CancelIntent {
            trigger,
            reason,
            deadline,
        })
    };
    let removed = context.rule.on_source_removed == Reaction::Cancel;
    if let Some(observation) = context
        .observation
        .filter(|observation| removed && is_gone(observation))
    {
        return cancel(Trigger::SourceRemoved, gone(observation.item));
    }
    if context.rule.on_retrigger != Reaction::Cancel {
        return DesiredCancellation::Keep;
    }
    if let Some(newer) = context.newer {
        return cancel(Trigger::Superseded, format!("Task {newer} is newer, for the same item"));
    }
    if let Some(by) = trigger_comment(context).filter(|_| !context.suspended) {
        return cancel(Trigger::Retrigger, format!("{by} asked for another run"));
    }
    match new_head(context) {
        Some(Head::First(sha)) => DesiredCancellation::Baseline(sha),
        _ if context.suspended => DesiredCancellation::Keep,
        Some(Head::New(sha)) => cancel(Trigger::Retrigger, format!("new commit {}", clip(&sha, 12))),
        None => schedule(context, grace),
    }
}

/// Whether an item is found again after a Task was cancelled because it was removed.
pub fn is_rediscovered(trigger: Trigger, observation: Option<SourceObservation<'_>>) -> bool {
    trigger == Trigger::SourceRemoved && observation.is_some_and(|observation| observation.discovered)
}

fn is_gone(observation: &SourceObservation<'_>) -> bool {
    !observation.discovered && observation.in_a_row >= CONFIRMATIONS
}

fn gone(item: Option<&SourceItem>) -> String {
    match item {
        None => "the item does not exist any more".to_owned(),
        Some(item) if !item.is_open => format!("#{} is closed", item.number),
        Some(item) => format!("#{} no longer passes its spawner's filters", item.number),
    }
}

/// The author of a trigger comment that is newer than the Task. Where teams or permissions decide who may trigger, no comment
/// counts.
///
/// Both times have whole seconds, and are compared as Kelos compares a comment with a Task's end, without a margin: a comment that
/// is not later than the Task is the one that the Task was created for.
fn trigger_comment(context: &CancelIntentContext<'_>) -> Option<String> {
    let policy = ["githubIssues", "githubPullRequests"]
        .into_iter()
        .find_map(|source| context.when.get(source)?.get("commentPolicy"))?;
    let command = policy.text("/triggerComment")?;
    let uncertain = policy.items("/allowedTeams").next().is_some() || policy.text("/minimumPermission").is_some();
    let mut allowed = policy.items("/allowedUsers").peekable();
    let created = kelos::Task::of(context.object).created()?;
    let says = |body: &str, command: &str| body.lines().any(|line| line.trim() == command);
    let item = context.observation?.item?;
    // A comment of the future waits until its time: the next Task would find it new as well.
    let is_new = |at: Timestamp| at > created && at <= context.now;
    let newer = item
        .comments
        .iter()
        .filter(|comment| comment.created.is_some_and(is_new));
    // The latest word counts.
    let latest = newer
        .filter(|comment| {
            let silences = |word: &Value| word.as_str().is_some_and(|word| says(&comment.body, word));
            says(&comment.body, command) || policy.items("/excludeComments").any(silences)
        })
        .max_by_key(|comment| comment.created)?;
    let may = allowed.peek().is_none() || allowed.any(|user| *user == latest.author);
    (!uncertain && may && says(&latest.body, command)).then(|| latest.author.clone())
}

enum Head {
    First(String),
    New(String),
}

/// Whether the pull request has another head than the one that the Task works on. A Task that works on a branch may have
/// pushed the new head itself.
fn new_head(context: &CancelIntentContext<'_>) -> Option<Head> {
    if kelos::Task::of(context.object).branch().is_some() {
        return None;
    }
    let head = context.observation?.item?.head_sha.as_deref()?;
    let metadata = Metadata::of(context.object);
    let known = metadata
        .annotation(kelos::SOURCE_SHA)
        .or_else(|| metadata.annotation(keys::SOURCE_HEAD));
    match known {
        None => Some(Head::First(head.to_owned())),
        Some(known) if known == head => None,
        Some(_) => Some(Head::New(head.to_owned())),
    }
}

/// The grace ends when the next run is due, so that the run finds the spawner's slot free: Kelos tries a run once.
fn schedule(context: &CancelIntentContext<'_>, grace: SignedDuration) -> DesiredCancellation {
    let schedule = context.when.text("/cron/schedule");
    let known = schedule.zip(kelos::Task::of(context.object).created());
    let Some(next) = known.and_then(|(schedule, created)| next_run(schedule, created)) else {
        return DesiredCancellation::Keep;
    };
    match next.checked_sub(grace) {
        Ok(from) if from > context.now => DesiredCancellation::RequeueAt(from),
        _ => DesiredCancellation::Cancel(CancelIntent {
            trigger: Trigger::Schedule,
            reason: format!("the next run is due at {next}"),
            deadline: next,
        }),
    }
}

/// The first run of a cron spawner after `moment`; `None` when the schedule cannot be read, or never comes. Kelos gives its
/// schedule to a CronJob: five fields in UTC, or a name such as `@hourly`.
pub fn next_run(schedule: &str, moment: Timestamp) -> Option<Timestamp> {
    let fields = match schedule.trim() {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        fields => fields,
    };
    // The crate searches four years, and panics where jiff has none left.
    moment.checked_add(SignedDuration::from_hours(5 * 366 * 24)).ok()?;
    let mut options = ParseOptions::default();
    options.fallback_timezone_option = FallbackTimezoneOption::UTC;
    let crontab = parse_crontab_with(fields, options).ok()?;
    let next = crontab.find_next(MakeTimestamp(moment)).ok()?;
    Some(next.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issue_source::Comment;
    use serde_json::json;

    fn rule(value: Value) -> CancellationPolicy {
        serde_json::from_value(value).unwrap()
    }

    fn task() -> Value {
        json!({"metadata": {"name": "fixer-42", "creationTimestamp": "2026-11-21T12:00:00Z"}, "spec": {}})
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn see(item: &SourceItem, discovered: bool, in_a_row: u32) -> SourceObservation<'_> {
        SourceObservation {
            item: Some(item),
            discovered,
            in_a_row,
        }
    }

    fn trigger(verdict: DesiredCancellation) -> Option<Trigger> {
        match verdict {
            DesiredCancellation::Cancel(intent) => Some(intent.trigger),
            _ => None,
        }
    }

    #[test]
    fn an_item_that_is_gone_twice_is_gone() {
        let item = SourceItem::default();
        let both = json!({"onSourceRemoved": "Cancel", "onRetrigger": "Cancel", "gracePeriodSeconds": 30});
        for (policy, observation, expected) in [
            (both.clone(), None, None),
            (both.clone(), Some(see(&item, false, 1)), None),
            (both.clone(), Some(see(&item, true, 9)), None),
            (both.clone(), Some(see(&item, false, 2)), Some(Trigger::SourceRemoved)),
            (json!({"onRetrigger": "Cancel"}), Some(see(&item, false, 2)), None),
            (json!({}), Some(see(&item, false, 2)), None),
        ] {
            let rule = rule(policy);
            let object = task();
            let context = CancelIntentContext {
                rule: &rule,
                object: &object,
                when: &Value::Null,
                suspended: false,
                observation,
                newer: None,
                now: at("2026-11-21T13:00:00.5Z"),
            };
            let verdict = desired_cancellation(&context);
            if let DesiredCancellation::Cancel(intent) = &verdict {
                assert_eq!(intent.deadline, at("2026-11-21T13:00:30Z"));
            }
            assert_eq!(trigger(verdict), expected, "{observation:?}");
        }
    }

    #[test]
    fn a_comment_counts_if_it_is_newer_and_its_author_is_known_to_be_allowed() {
        let comment = |author: &str, body: &str, created: &str| Comment {
            id: 1,
            author: author.into(),
            created: Some(at(created)),
            by_person: true,
            body: body.into(),
        };
        let later = "2026-11-21T12:30:00Z";
        let latest = "2026-11-21T12:40:00Z";
        for (policy, comments, expected) in [
            (json!({}), vec![comment("ann", "/fix", later)], true),
            (json!({}), vec![comment("ann", "please\n  /fix ", later)], true),
            (json!({}), vec![comment("ann", "please /fix", later)], false),
            (json!({}), vec![comment("ann", "/fix", "2026-11-21T12:00:00Z")], false),
            (json!({}), vec![comment("ann", "/fix", "2026-11-21T12:00:01Z")], true),
            (json!({}), vec![comment("ann", "/fix", "2026-11-21T13:00:01Z")], false),
            (
                json!({"allowedUsers": ["bob"]}),
                vec![comment("ann", "/fix", later)],
                false,
            ),
            (
                json!({"allowedUsers": ["ann"]}),
                vec![comment("ann", "/fix", later)],
                true,
            ),
            (
                json!({"allowedTeams": ["o/t"]}),
                vec![comment("ann", "/fix", later)],
                false,
            ),
            (
                json!({"minimumPermission": "write"}),
                vec![comment("ann", "/fix", later)],
                false,
            ),
            (
                json!({"excludeComments": ["/stop"]}),
                vec![comment("ann", "/fix", later), comment("ann", "/stop", latest)],
                false,
            ),
        ] {
            let mut policy = policy;
            policy["triggerComment"] = "/fix".into();
            let item = SourceItem {
                comments,
                ..SourceItem::default()
            };
            let rule = rule(json!({"onRetrigger": "Cancel"}));
            let object = task();
            let context = CancelIntentContext {
                rule: &rule,
                object: &object,
                when: &json!({"githubIssues": {"commentPolicy": policy}}),
                suspended: false,
                observation: Some(see(&item, true, 1)),
                newer: None,
                now: at("2026-11-21T13:00:00Z"),
            };
            assert_eq!(
                trigger(desired_cancellation(&context)) == Some(Trigger::Retrigger),
                expected,
                "{policy}"
            );
        }
    }

    #[test]
    fn another_head_is_another_trigger_but_for_who_may_have_pushed_it() {
        let item = SourceItem {
            head_sha: Some("b".repeat(40)),
            ..SourceItem::default()
        };
        let rule = rule(json!({"onRetrigger": "Cancel"}));
        let verdict = |change: fn(&mut Value)| {
            let mut object = task();
            change(&mut object);
            desired_cancellation(&CancelIntentContext {
                rule: &rule,
                object: &object,
                when: &Value::Null,
                suspended: false,
                observation: Some(see(&item, true, 1)),
                newer: None,
                now: at("2026-11-21T13:00:00Z"),
            })
        };
        assert_eq!(verdict(|_| {}), DesiredCancellation::Baseline("b".repeat(40)));
        let known = verdict(|task| task["metadata"]["annotations"] = json!({keys::SOURCE_HEAD: "b".repeat(40)}));
        assert_eq!(known, DesiredCancellation::Keep);
        let old = |task: &mut Value| task["metadata"]["annotations"] = json!({kelos::SOURCE_SHA: "a"});
        assert_eq!(trigger(verdict(old)), Some(Trigger::Retrigger));
        let own = verdict(|task| {
            task["metadata"]["annotations"] = json!({kelos::SOURCE_SHA: "a"});
            task["spec"]["branch"] = "feature".into();
        });
        assert_eq!(own, DesiredCancellation::Keep);
    }

    #[test]
    fn the_grace_ends_when_the_next_run_is_due() {
        let rule = rule(json!({"onRetrigger": "Cancel", "gracePeriodSeconds": 60}));
        let verdict = |now: &str| {
            desired_cancellation(&CancelIntentContext {
                rule: &rule,
                object: &task(),
                when: &json!({"cron": {"schedule": "*/10 * * * *"}}),
                suspended: false,
                observation: None,
                newer: None,
                now: at(now),
            })
        };
        assert_eq!(
            verdict("2026-11-21T12:05:00Z"),
            DesiredCancellation::RequeueAt(at("2026-11-21T12:09:00Z"))
        );
        let DesiredCancellation::Cancel(intent) = verdict("2026-11-21T12:09:30Z") else {
            unreachable!("due")
        };
        assert_eq!(
            (intent.trigger, intent.deadline),
            (Trigger::Schedule, at("2026-11-21T12:10:00Z"))
        );
    }

    /// A suspended spawner gets no further run, so that nothing supersedes the agent that works.
    #[test]
    fn a_suspended_spawner_makes_no_run_to_make_room_for() {
        let rule = rule(json!({"onRetrigger": "Cancel", "onSourceRemoved": "Cancel"}));
        let item = SourceItem {
            head_sha: Some("b".repeat(40)),
            comments: vec![Comment {
                id: 1,
                author: "ann".into(),
                created: Some(at("2026-11-21T12:30:00Z")),
                by_person: true,
                body: "/fix".into(),
            }],
            ..SourceItem::default()
        };
        let seen = |discovered| Some(see(&item, discovered, 2));
        let cron = json!({"cron": {"schedule": "*/10 * * * *"}});
        let comments = json!({"githubIssues": {"commentPolicy": {"triggerComment": "/fix"}}});
        let none = Value::Null;
        let mut task = task();
        task["metadata"]["annotations"] = json!({kelos::SOURCE_SHA: "a"});
        for (when, observation, newer, expected, anyway) in [
            (&cron, None, None, Trigger::Schedule, false),
            (&comments, seen(true), None, Trigger::Retrigger, false),
            (&none, seen(true), None, Trigger::Retrigger, false),
            (&none, None, Some("fixer-43"), Trigger::Superseded, true),
            (&none, seen(false), None, Trigger::SourceRemoved, true),
        ] {
            let verdict = |suspended| {
                trigger(desired_cancellation(&CancelIntentContext {
                    rule: &rule,
                    object: &task,
                    when,
                    suspended,
                    observation,
                    newer,
                    now: at("2026-11-21T13:00:00Z"),
                }))
            };
            assert_eq!(verdict(false), Some(expected));
            assert_eq!(verdict(true), anyway.then_some(expected), "{expected:?}");
        }
    }
}

#[cfg(test)]
mod schedule_tests {
    use super::*;

    #[test]
    fn the_next_run_is_as_a_cronjob_has_it() {
        for (schedule, next) in [
            ("* * * * *", Some("2026-11-21T12:31:00Z")),
            ("*/15 * * * *", Some("2026-11-21T12:45:00Z")),
            ("30 12 * * *", Some("2026-11-22T12:30:00Z")),
            ("0 0 1 * *", Some("2026-12-01T00:00:00Z")),
            ("0 9 * * 1-5", Some("2026-11-23T09:00:00Z")),
            ("0 0 13 * 5", Some("2026-11-27T00:00:00Z")),
            ("@hourly", Some("2026-11-21T13:00:00Z")),
            ("@every 1h", None),
            ("61 * * * *", None),
            ("", None),
            ("soon", None),
            ("0 0 31 2 *", None),
        ] {
            let moment = "2026-11-21T12:30:00Z".parse().unwrap();
            assert_eq!(
                next_run(schedule, moment),
                next.map(|next| next.parse().unwrap()),
                "{schedule}"
            );
        }
    }

    #[test]
    fn at_the_end_of_time_there_is_no_next_run() {
        let moment = "9998-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(next_run("* * * * *", moment), None);
    }
}
