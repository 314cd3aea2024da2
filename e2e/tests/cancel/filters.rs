//! An item that is there, and no longer passes its spawner's filters: every filter of Kelos' that the item itself decides.

use anyhow::ensure;
use futures::future::try_join_all;
use kelos_standin::Issue;
use serde_json::{Value, json};

use crate::{
    matrix::{State, ends, reach, stays, world},
    world::{World, condition},
};

/// A spawner with one filter, its item, and what happens to that.
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
        // GitHub gives what somebody wrote who left to a user of this name.
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
fn item(world: &World<'_>, case: &Case, number: u64) -> Issue {
    let repo = world.repo();
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

async fn is_cancelled(world: &World<'_>, spawner: &str, number: u64) -> anyhow::Result<()> {
    let task = format!("{spawner}-{number}");
    ends(world, &task, State::Running, "SourceRemoved").await?;
    let told = condition(&world.tasks().get(&task).await?);
    let message = format!("Cancelled by spawner:{spawner}: #{number} no longer passes its spawner's filters");
    ensure!(told["message"] == message.as_str(), "{told}");
    Ok(())
}

#[tokio::test]
async fn what_a_filter_lets_through_no_more_is_cancelled() -> anyhow::Result<()> {
    let world = world(State::Running, "filters", &json!({"onSourceRemoved": "Cancel"})).await?;
    let cases = cases();
    let numbered = || (1..).zip(&cases);
    let mut items = Vec::new();
    for (number, case) in numbered() {
        items.push(item(&world, case, number));
        let when = when(case.source, case.spawner, &case.filter);
        world.spawner(case.spawner, &when, &json!({})).await?;
    }
    // One whose spawner changes its mind, and one that passes all there is, before and after.
    world.repo().issue(20).labels(["edited"]);
    world
        .spawner("edited", &when(ISSUES, "edited", &json!({})), &json!({}))
        .await?;
    let all = json!({"assignee": "bot", "author": "ann", "excludeAuthors": ["ghost"], "excludeLabels": ["wontfix"]});
    let kept = world.repo().issue(21);
    kept.author("ann").assignee("bot").labels(["kept"]);
    world.spawner("kept", &when(ISSUES, "kept", &all), &json!({})).await?;
    let names = numbered().map(|(number, case)| format!("{}-{number}", case.spawner));
    let names: Vec<_> = names.chain(["edited-20".into(), "kept-21".into()]).collect();
    try_join_all(names.iter().map(|name| reach(&world, name, State::Running))).await?;
    try_join_all(names.iter().map(|name| stays(&world, name))).await?;

    for (item, case) in items.iter().zip(&cases) {
        (case.leaves)(item);
    }
    kept.title("another title").labels(["kept", "bug"]);
    let edited = when(ISSUES, "edited", &json!({"excludeAuthors": ["reporter"]}));
    world.spawner("edited", &edited, &json!({})).await?;
    try_join_all(numbered().map(|(number, case)| is_cancelled(&world, case.spawner, number))).await?;
    is_cancelled(&world, "edited", 20).await?;
    // A cycle of the edited one may meet the edit.
    for case in &cases {
        ensure!(world.failed_cycles(case.spawner) == 0, "{}", case.spawner);
    }
    stays(&world, "kept-21").await
}
