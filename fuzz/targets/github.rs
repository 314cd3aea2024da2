//! An answer of GitHub about an item, and the decisions from it.
//!
//! The input is `{"number": 42, "answer": …, "pages": [[…]], "user": …, "spawner": TaskSpawner, "workspace": URL, "task": …,
//! "status": WorkItemStatus, "failure": FailurePolicy, "cancellation": CancellationPolicy, "headers": ["…"], "code": 403,
//! "now": time}`; all but `answer` may be missing.

#![no_main]

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use taskgate_api::{
    TaskPolicySpec, WorkItemStatus,
    task_policy::{CancellationPolicy, FailurePolicy},
};
use taskgate_fuzz::{cpu_time, init, json, rules, template};
use taskgate_policy::{
    CancelIntentContext, Policy, PolicySet, SourceObservation, SpawnerInfo, baseline, desired_cancellation, fit,
    metadata::{TemplateInput, fill},
    next_run,
    source::{
        IssueSource, ItemPresence, RateHeaders, Repository, SourceItem, SourceVerdict, backoff, evaluate_source,
        github::{self, Conversation},
        pause,
    },
};

/// The longest text of an item, in characters.
const MAX_TEXT: usize = 1024;
/// The CPU time per item, most of it for a schedule without a next run.
const MAX_TIME: Duration = Duration::from_secs(1);

fn read<T: DeserializeOwned>(input: &Value, field: &str) -> Option<T> {
    T::deserialize(input.get(field)?).ok()
}

/// The item in the answer, with the comments in the pages.
fn item(input: &Value) -> Option<SourceItem> {
    let number = input["number"].as_u64().unwrap_or(42);
    let mut item = github::item(&input["answer"], number)?;
    assert_eq!(item.number, number);
    let own = github::login(&input["user"]);
    let mut conversation = Conversation::new(true);
    for page in input["pages"].as_array().into_iter().flatten() {
        conversation.add(page, own.as_deref())?;
    }
    conversation.finish(&mut item);
    let names = item.labels.iter().chain(&item.assignees);
    let bodies = item
        .comments
        .iter()
        .flat_map(|comment| [&comment.author, &comment.body]);
    for text in names
        .chain(bodies)
        .chain([&item.title, &item.author, &item.url])
        .chain(&item.head_sha)
    {
        assert!(text.chars().count() <= MAX_TEXT, "{text:?}");
    }
    assert!(item.labels.len() <= 100 && item.assignees.len() <= 100 && item.comments.len() <= 30);
    assert!(item.is_as(&item));
    Some(item)
}

/// The status of the item's WorkItem.
fn check_status(input: &Value, item: Option<&SourceItem>) {
    let (Some(status), Some(rule)) = (
        read::<WorkItemStatus>(input, "status"),
        read::<FailurePolicy>(input, "failure"),
    ) else {
        return;
    };
    let presence = item.map_or(ItemPresence::Missing(2), ItemPresence::Found);
    if let SourceVerdict::Baseline(hash) = evaluate_source(&status, &rule, presence) {
        let next = baseline(&status, &hash);
        assert_eq!(evaluate_source(&next, &rule, presence), SourceVerdict::Keep);
        assert_eq!(rules::status_errors(&fit(&next)), Vec::<String>::new());
    }
}

/// The labels, annotations and cancellation of a Task.
fn check_task(input: &Value, item: Option<&SourceItem>, discovered: bool, now: Timestamp) {
    let task = &input["task"];
    let spawner = &input["spawner"];
    if let Some(rule) = read::<CancellationPolicy>(input, "cancellation") {
        let _ = desired_cancellation(&CancelIntentContext {
            rule: &rule,
            object: task,
            when: spawner.pointer("/spec/when").unwrap_or(&Value::Null),
            suspended: false,
            observation: Some(SourceObservation {
                item,
                discovered,
                in_a_row: 2,
            }),
            newer: None,
            now,
        });
    }
    let Some(facts) = item.map(SourceItem::template_fields) else {
        return;
    };
    let (labels, spawner) = (BTreeMap::new(), SpawnerInfo::of(spawner));
    let scope = TemplateInput {
        object: task,
        namespace: "team",
        namespace_labels: &labels,
        spawner: Some(&spawner),
        workspace: None,
        user: None,
        source_fields: Some(&facts),
    };
    POLICIES.with(|policies| {
        let filling = fill(policies, &scope);
        let mut after = json!({"metadata": task["metadata"]});
        json_patch::merge(&mut after["metadata"], &filling.change);
        rules::assert_legal_metadata(task, &after, 16 * 1024);
    });
}

thread_local! {
    static POLICIES: PolicySet = policies();
}

fn policies() -> PolicySet {
    let spec = json!({"metadata": {
        "fromSource": true, "overrideExisting": true, "illegalValue": "Sanitize",
        "labels": {"title": "{{ item.title }}", "author": "{{ item.author | lower }}", "first": "{{ item.labels | first }}"},
        "annotations": {"labels": "{{ item.labels | join(sep=',') }}"},
    }});
    let spec: TaskPolicySpec = serde_json::from_value(spec).expect("a spec");
    PolicySet::new([Policy::namespaced("team", "agents", &spec).expect("it compiles")])
}

/// The headers of an answer, and the addresses of requests.
fn check_request(input: &Value, now: Timestamp) {
    let headers: Vec<String> = read(input, "headers").unwrap_or_default();
    let header = |index: usize| headers.get(index).map(String::as_str);
    let rate = RateHeaders {
        retry_after: header(0),
        remaining: header(1),
        reset: header(2),
    };
    let code = read(input, "code").unwrap_or(200);
    if let Some(until) = pause(code, rate, now) {
        assert!(until > now && until.duration_since(now) <= SignedDuration::from_hours(2));
    }
    assert!(backoff(code.into(), Duration::from_secs(60)) <= Duration::from_mins(15));
    if let Some(schedule) = input["spawner"]
        .pointer("/spec/when/cron/schedule")
        .and_then(Value::as_str)
    {
        assert!(next_run(schedule, now).is_none_or(|next| next > now));
    }
    let own = input["spawner"]
        .pointer("/spec/when/githubIssues/repo")
        .and_then(Value::as_str);
    let workspace = input["workspace"].as_str().unwrap_or_default();
    for repository in [Repository::of(own, workspace), Repository::parse(workspace)]
        .into_iter()
        .flatten()
    {
        for part in [&repository.owner, &repository.name] {
            let path = part.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
            assert!(
                path && !part.is_empty() && part != "." && part != "..",
                "{repository:?}"
            );
        }
        assert!(!repository.host.contains(['/', '@', '?', '#', ' ']), "{repository:?}");
    }
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    json::mutate(data, size, max_size, seed, template::any)
});

fuzz_target!(init: init(), |data: &[u8]| -> Corpus {
    let Some(input) = json::parse(data) else { return Corpus::Reject };
    let now = read(&input, "now").unwrap_or_else(|| Timestamp::constant(1_796_040_000, 0));
    let began = cpu_time();
    let item = item(&input);
    let source = IssueSource::of(&input["spawner"]);
    let discovered = source.is_ok_and(|source| item.as_ref().is_some_and(|item| source.filter.discovers(item)));
    check_status(&input, item.as_ref());
    check_task(&input, item.as_ref(), discovered, now);
    check_request(&input, now);
    let took = cpu_time().saturating_sub(began);
    assert!(took <= MAX_TIME, "took {took:?}");
    Corpus::Keep
});
