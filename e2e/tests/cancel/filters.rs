//! An item that no longer passes its spawner's filters: every filter of Kelos that depends on the item alone.

use anyhow::ensure;
use futures::future::try_join_all;
use kelos_standin::Issue;
use serde_json::{Value, json};
use taskgate_e2e::KelosFixture;

use crate::{
    matrix::{State, ends, fixture_in, reach, stays},
    support::cancelled_condition,
};

/// A spawner with one filter, its item, and the change after which the item does not pass.
struct Case {
    spawner: &'static str,
    source: &'static str,
    filter: Value,
    leaves: fn(&Issue),
}

const ISSUES: &str = "githubIssues";
const PULLS: &str = "githubPullRequests";

fn cases() -> Vec<Case> {
    let case = |spawner, source, filter, leaves| Case {
        spawner,
        source,
        filter,
        leaves,
    };
    vec![
        case("labelled", ISSUES, json!({}), |issue| {
            issue.labels([]);
        }),
        case("excluded", ISSUES, json!({"excludeLabels": ["wontfix"]}), |issue| {
            issue.labels(["excluded", "wontfix"]);
        }),
        case("assigned", ISSUES, json!({"assignee": "bot"}), |issue| {
            issue.assignee("bob");
        }),
        case("unassigned", ISSUES, json!({"assignee": "none"}), |issue| {
            issue.assignee("bob");
        }),
        // GitHub attributes the issues of deleted accounts to a user of this name.
        case("written", ISSUES, json!({"author": "ann"}), |issue| {
            issue.author("ghost");
        }),
        case("unwritten", ISSUES, json!({"excludeAuthors": ["ghost"]}), |issue| {
            issue.author("ghost");
        }),
        case("draft", PULLS, json!({"draft": false}), |pull| {
            pull.draft(true);
        }),
        case("pull", PULLS, json!({"excludeLabels": ["wontfix"]}), |pull| {
            pull.labels(["pull", "wontfix"]);
        }),
        case("theirs", PULLS, json!({"author": "ann"}), |pull| {
            pull.author("ghost");
        }),
    ]
}

/// Each spawner sees one item, by a label with the spawner's name.
fn when(source: &str, spawner: &str, filter: &Value) -> Value {
    let mut filter = filter.clone();
    filter["labels"] = json!([spawner]);
    filter["pollInterval"] = "1s".into();
    json!({(source): filter})
}

/// The spawner's item, which passes its filter.
fn item(fixture: &KelosFixture<'_>, case: &Case, number: u64) -> Issue {
    let repo = fixture.repo();
    let item = if case.source == PULLS {
        repo.pull(number)
    } else {
        repo.issue(number)
    };
    item.author("ann");
    if case.spawner == "assigned" {
        item.assignee("bot");
    }
    item.labels([case.spawner]);
    item
}

async fn is_cancelled(fixture: &KelosFixture<'_>, spawner: &str, number: u64) -> anyhow::Result<()> {
    let task = format!("{spawner}-{number}");
    ends(fixture, &task, State::Running, "SourceRemoved").await?;
    let told = cancelled_condition(&fixture.tasks().get(&task).await?);
    let message = format!("Cancelled by spawner:{spawner}: #{number} no longer passes its spawner's filters");
    ensure!(told["message"] == message.as_str(), "{told}");
    Ok(())
}

#[tokio::test]
async fn an_item_that_no_longer_passes_a_filter_is_cancelled() -> anyhow::Result<()> {
    let fixture = fixture_in(State::Running, "filters", &json!({"onSourceRemoved": "Cancel"})).await?;
    let cases = cases();
    let numbered = || (1..).zip(&cases);
    let mut items = Vec::new();
    for (number, case) in numbered() {
        items.push(item(&fixture, case, number));
        let when = when(case.source, case.spawner, &case.filter);
        fixture.spawner(case.spawner, &when, &json!({})).await?;
    }
    // One whose spawner is edited, and one that passes every filter before and after.
    fixture.repo().issue(20).labels(["edited"]);
    fixture
        .spawner("edited", &when(ISSUES, "edited", &json!({})), &json!({}))
        .await?;
    let all = json!({"assignee": "bot", "author": "ann", "excludeAuthors": ["ghost"], "excludeLabels": ["wontfix"]});
    let kept = fixture.repo().issue(21);
    kept.author("ann").assignee("bot").labels(["kept"]);
    fixture.spawner("kept", &when(ISSUES, "kept", &all), &json!({})).await?;
    let names = numbered().map(|(number, case)| format!("{}-{number}", case.spawner));
    let names: Vec<_> = names.chain(["edited-20".into(), "kept-21".into()]).collect();
    try_join_all(names.iter().map(|name| reach(&fixture, name, State::Running))).await?;
    try_join_all(names.iter().map(|name| stays(&fixture, name))).await?;

    for (item, case) in items.iter().zip(&cases) {
        (case.leaves)(item);
    }
    kept.title("another title").labels(["kept", "bug"]);
    let edited = when(ISSUES, "edited", &json!({"excludeAuthors": ["reporter"]}));
    fixture.spawner("edited", &edited, &json!({})).await?;
    try_join_all(numbered().map(|(number, case)| is_cancelled(&fixture, case.spawner, number))).await?;
    is_cancelled(&fixture, "edited", 20).await?;
    // A cycle of the edited one may meet the edit.
    for case in &cases {
        ensure!(fixture.failed_cycles(case.spawner) == 0, "{}", case.spawner);
    }
    stays(&fixture, "kept-21").await
}
