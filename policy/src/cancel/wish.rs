//! When a policy wants a Task cancelled (seed 001: onSourceRemoved, onRetrigger).
//!
//! Only certainty cancels: what the tracker does not tell, or told once, leaves the Task alone.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use taskgate_api::{
    kelos, keys,
    metadata::Metadata,
    task_policy::{CancellationPolicy, Reaction},
};

use super::{Stamp, Trigger, next_run};
use crate::source::SourceItem;

/// How often in a row, an interval apart, the tracker must say that an item is not there before it is believed.
const CONFIRMATIONS: u32 = 2;
/// How much later than the Task a comment must be to be a new one: the clocks of tracker and cluster differ.
const SKEW: SignedDuration = SignedDuration::from_secs(5);

/// What the tracker said of the Task's item.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// The item; `None` when it does not exist any more.
    pub item: Option<&'a SourceItem>,
    /// Whether the spawner still finds it.
    pub discovered: bool,
    /// For how many answers in a row that has been so.
    pub in_a_row: u32,
}

/// What a wish turns on.
#[derive(Clone, Copy, Debug)]
pub struct WishScene<'a> {
    /// The policy's section.
    pub rule: &'a CancellationPolicy,
    /// The Task, which is under way.
    pub object: &'a Value,
    /// `spec.when` of its spawner; null when that is not known.
    pub when: &'a Value,
    /// Whether its spawner is suspended: then there is no further run to make room for.
    pub suspended: bool,
    /// What the tracker said, if it was asked.
    pub sighting: Option<Sighting<'a>>,
    /// The name of a newer Task for the same item.
    pub newer: Option<&'a str>,
    /// What time it is.
    pub now: Timestamp,
}

/// That a Task is to be cancelled, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What sets it off.
    pub trigger: Trigger,
    /// Why, for people.
    pub reason: String,
    /// When it is due.
    pub deadline: Timestamp,
}

impl Wish {
    /// The stamp of this wish, in the name of the spawner.
    pub fn stamp(&self, spawner: &str, now: Timestamp) -> Stamp {
        let by = format!("spawner:{spawner}");
        Stamp {
            deadline: self.deadline,
            ..Stamp::new(by, self.trigger, now, 0)
        }
    }
}

/// What is wanted of a Task at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Leave,
    /// Nothing until this moment.
    LookAt(Timestamp),
    /// Remember this head of the pull request: it is what the Task works on.
    Baseline(String),
    /// That it is cancelled.
    Cancel(Wish),
}

/// What the policy wants of the Task.
pub fn wish(scene: &WishScene<'_>) -> Verdict {
    let grace = SignedDuration::from_secs(i64::from(scene.rule.grace_period_seconds));
    let cancel = |trigger, reason| {
        let whole = Timestamp::from_second(scene.now.as_second()).unwrap_or(scene.now);
        let deadline = whole.checked_add(grace).unwrap_or(whole);
        Verdict::Cancel(Wish {
            trigger,
            reason,
            deadline,
        })
    };
    let removed = scene.rule.on_source_removed == Reaction::Cancel;
    if let Some(sighting) = scene.sighting.filter(|sighting| removed && is_gone(sighting)) {
        return cancel(Trigger::SourceRemoved, gone(sighting.item));
    }
    if scene.rule.on_retrigger != Reaction::Cancel {
        return Verdict::Leave;
    }
    if let Some(newer) = scene.newer {
        return cancel(Trigger::Superseded, format!("Task {newer} is newer, for the same item"));
    }
    if let Some(by) = trigger_comment(scene).filter(|_| !scene.suspended) {
        return cancel(Trigger::Retrigger, format!("{by} asked for another run"));
    }
    match new_head(scene) {
        Some(Head::First(sha)) => Verdict::Baseline(sha),
        _ if scene.suspended => Verdict::Leave,
        Some(Head::New(sha)) => cancel(Trigger::Retrigger, format!("new commit {}", crate::clip(&sha, 12))),
        None => schedule(scene, grace),
    }
}

/// Whether the item whose disappearance had the Task cancelled is wanted after all.
pub fn is_back(trigger: Trigger, sighting: Option<Sighting<'_>>) -> bool {
    trigger == Trigger::SourceRemoved && sighting.is_some_and(|sighting| sighting.discovered)
}

fn is_gone(sighting: &Sighting<'_>) -> bool {
    !sighting.discovered && sighting.in_a_row >= CONFIRMATIONS
}

fn gone(item: Option<&SourceItem>) -> String {
    match item {
        None => "the item does not exist any more".to_owned(),
        Some(item) if !item.is_open => format!("#{} is closed", item.number),
        Some(item) => format!("#{} no longer passes its spawner's filters", item.number),
    }
}

/// Who asked for another run in a comment that is newer than the Task. Where it takes teams or permissions to know who
/// may ask, nobody is believed.
fn trigger_comment(scene: &WishScene<'_>) -> Option<String> {
    let policy = ["githubIssues", "githubPullRequests"]
        .into_iter()
        .find_map(|source| scene.when.get(source)?.get("commentPolicy"))?;
    let command = policy
        .get("triggerComment")?
        .as_str()
        .filter(|command| !command.is_empty())?;
    let words_of = |field: &str| policy.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let uncertain = !words_of("allowedTeams").is_empty()
        || policy
            .get("minimumPermission")
            .and_then(Value::as_str)
            .is_some_and(|permission| !permission.is_empty());
    let allowed = words_of("allowedUsers");
    let excluded = words_of("excludeComments");
    let created = kelos::Task::of(scene.object).created()?.checked_add(SKEW).ok()?;
    let says = |body: &str, command: &str| body.lines().any(|line| line.trim() == command);
    let item = scene.sighting?.item?;
    // A comment of the future waits until its time: the next Task would find it new as well.
    let is_new = |at: Timestamp| at > created && at <= scene.now;
    let newer = item
        .comments
        .iter()
        .filter(|comment| comment.created.is_some_and(is_new));
    // The latest word counts.
    let latest = newer
        .filter(|comment| {
            let silences = |word: &Value| word.as_str().is_some_and(|word| says(&comment.body, word));
            says(&comment.body, command) || excluded.iter().any(silences)
        })
        .max_by_key(|comment| comment.created)?;
    let may = allowed.is_empty() || allowed.iter().any(|user| *user == latest.author);
    (!uncertain && may && says(&latest.body, command)).then(|| latest.author.clone())
}

enum Head {
    First(String),
    New(String),
}

/// Whether the pull request has another head than the one that the Task works on. A Task that works on a branch may have
/// pushed the new head itself.
fn new_head(scene: &WishScene<'_>) -> Option<Head> {
    if kelos::Task::of(scene.object).branch().is_some() {
        return None;
    }
    let head = scene.sighting?.item?.head_sha.as_deref()?;
    let metadata = Metadata::of(scene.object);
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
fn schedule(scene: &WishScene<'_>, grace: SignedDuration) -> Verdict {
    let schedule = scene.when.pointer("/cron/schedule").and_then(Value::as_str);
    let created = kelos::Task::of(scene.object).created();
    let next = schedule
        .zip(created)
        .and_then(|(schedule, created)| next_run(schedule, created));
    let Some(next) = next else {
        return Verdict::Leave;
    };
    match next.checked_sub(grace) {
        Ok(from) if from > scene.now => Verdict::LookAt(from),
        _ => Verdict::Cancel(Wish {
            trigger: Trigger::Schedule,
            reason: format!("the next run is due at {next}"),
            deadline: next,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Comment;
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

    fn see(item: &SourceItem, discovered: bool, in_a_row: u32) -> Sighting<'_> {
        Sighting {
            item: Some(item),
            discovered,
            in_a_row,
        }
    }

    fn trigger(verdict: Verdict) -> Option<Trigger> {
        match verdict {
            Verdict::Cancel(wish) => Some(wish.trigger),
            _ => None,
        }
    }

    #[test]
    fn an_item_that_is_gone_twice_is_gone() {
        let item = SourceItem::default();
        let both = json!({"onSourceRemoved": "Cancel", "onRetrigger": "Cancel", "gracePeriodSeconds": 30});
        for (policy, sighting, expected) in [
            (both.clone(), None, None),
            (both.clone(), Some(see(&item, false, 1)), None),
            (both.clone(), Some(see(&item, true, 9)), None),
            (both.clone(), Some(see(&item, false, 2)), Some(Trigger::SourceRemoved)),
            (json!({"onRetrigger": "Cancel"}), Some(see(&item, false, 2)), None),
            (json!({}), Some(see(&item, false, 2)), None),
        ] {
            let rule = rule(policy);
            let object = task();
            let scene = WishScene {
                rule: &rule,
                object: &object,
                when: &Value::Null,
                suspended: false,
                sighting,
                newer: None,
                now: at("2026-11-21T13:00:00.5Z"),
            };
            let verdict = wish(&scene);
            if let Verdict::Cancel(wish) = &verdict {
                assert_eq!(wish.deadline, at("2026-11-21T13:00:30Z"));
            }
            assert_eq!(trigger(verdict), expected, "{sighting:?}");
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
            (json!({}), vec![comment("ann", "/fix", "2026-11-21T12:00:03Z")], false),
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
            let scene = WishScene {
                rule: &rule,
                object: &object,
                when: &json!({"githubIssues": {"commentPolicy": policy}}),
                suspended: false,
                sighting: Some(see(&item, true, 1)),
                newer: None,
                now: at("2026-11-21T13:00:00Z"),
            };
            assert_eq!(trigger(wish(&scene)) == Some(Trigger::Retrigger), expected, "{policy}");
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
            wish(&WishScene {
                rule: &rule,
                object: &object,
                when: &Value::Null,
                suspended: false,
                sighting: Some(see(&item, true, 1)),
                newer: None,
                now: at("2026-11-21T13:00:00Z"),
            })
        };
        assert_eq!(verdict(|_| {}), Verdict::Baseline("b".repeat(40)));
        let known = verdict(|task| task["metadata"]["annotations"] = json!({keys::SOURCE_HEAD: "b".repeat(40)}));
        assert_eq!(known, Verdict::Leave);
        let old = |task: &mut Value| task["metadata"]["annotations"] = json!({kelos::SOURCE_SHA: "a"});
        assert_eq!(trigger(verdict(old)), Some(Trigger::Retrigger));
        let own = verdict(|task| {
            task["metadata"]["annotations"] = json!({kelos::SOURCE_SHA: "a"});
            task["spec"]["branch"] = "feature".into();
        });
        assert_eq!(own, Verdict::Leave);
    }

    #[test]
    fn the_grace_ends_when_the_next_run_is_due() {
        let rule = rule(json!({"onRetrigger": "Cancel", "gracePeriodSeconds": 60}));
        let verdict = |now: &str| {
            wish(&WishScene {
                rule: &rule,
                object: &task(),
                when: &json!({"cron": {"schedule": "*/10 * * * *"}}),
                suspended: false,
                sighting: None,
                newer: None,
                now: at(now),
            })
        };
        assert_eq!(
            verdict("2026-11-21T12:05:00Z"),
            Verdict::LookAt(at("2026-11-21T12:09:00Z"))
        );
        let Verdict::Cancel(wish) = verdict("2026-11-21T12:09:30Z") else {
            unreachable!("due")
        };
        assert_eq!(
            (wish.trigger, wish.deadline),
            (Trigger::Schedule, at("2026-11-21T12:10:00Z"))
        );
    }

    /// Who suspended it wants no further run, and the agent that is at work is none.
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
        for (when, sighting, newer, expected, anyway) in [
            (&cron, None, None, Trigger::Schedule, false),
            (&comments, seen(true), None, Trigger::Retrigger, false),
            (&none, seen(true), None, Trigger::Retrigger, false),
            (&none, None, Some("fixer-43"), Trigger::Superseded, true),
            (&none, seen(false), None, Trigger::SourceRemoved, true),
        ] {
            let verdict = |suspended| {
                trigger(wish(&WishScene {
                    rule: &rule,
                    object: &task,
                    when,
                    suspended,
                    sighting,
                    newer,
                    now: at("2026-11-21T13:00:00Z"),
                }))
            };
            assert_eq!(verdict(false), Some(expected));
            assert_eq!(verdict(true), anyway.then_some(expected), "{expected:?}");
        }
    }
}
