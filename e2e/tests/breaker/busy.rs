//! The condition `ItemsCircuitBroken` of a spawner whose WorkItems change all the time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;
use kelos_standin::types::TaskSpawner;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use taskgate_api::WorkItem;
use taskgate_e2e::{KelosFixture, condition, eventually};
use taskgate_policy::ItemIdentity;
use tokio::time::sleep;

use crate::support::{governed, limit};

const CONDITION: &str = "ItemsCircuitBroken";
const ITEMS: usize = 108;
/// The longest delay of the condition, and a moment for the write.
const BOUND: Duration = Duration::from_secs(33);

/// An open item of spawner `fixer`, as taskgate writes it.
async fn open_item(items: &Api<WorkItem>, number: usize) -> anyhow::Result<String> {
    let identity = ItemIdentity {
        spawner: Some("fixer".to_owned()),
        item: number.to_string(),
        key: format!("fixer/{number}"),
    };
    let name = identity.work_item_name();
    items.create(&PostParams::default(), &identity.work_item(&name)).await?;
    let now = Timestamp::now().strftime("%FT%TZ").to_string();
    let status = json!({"status": {
        "breaker": "Open", "consecutiveFailures": 3, "openedAt": now, "lastFailureTime": now, "reason": "MaxRetriesExceeded",
    }});
    items
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
        .await?;
    Ok(name)
}

/// Changes one WorkItem after another, without an end.
async fn churn(items: &Api<WorkItem>, names: &[String]) -> anyhow::Result<()> {
    for (round, name) in names.iter().cycle().enumerate() {
        let patch = Patch::Merge(json!({"status": {"totalCostUSD": format!("0.{round:06}")}}));
        items.patch_status(name, &PatchParams::default(), &patch).await?;
        sleep(Duration::from_millis(150)).await;
    }
    Ok(())
}

/// Until the condition counts `count` items; how long that took.
async fn listed(fixture: &KelosFixture<'_>, count: usize) -> anyhow::Result<Duration> {
    let (began, expected) = (Instant::now(), format!("{count} items skipped"));
    eventually(format!("the condition counts {count} items"), BOUND, || async {
        let spawner = fixture.api::<TaskSpawner>().get("fixer").await?;
        let message = condition(&spawner, CONDITION).context("no condition")?["message"].to_string();
        ensure!(message.contains(&expected), "{message}");
        Ok(())
    })
    .await?;
    Ok(began.elapsed())
}

#[tokio::test]
async fn the_condition_of_a_busy_spawner_is_written_in_time_and_only_when_it_changes() -> anyhow::Result<()> {
    let fixture = governed("busy", limit(3)).await?;
    let when = json!({"githubIssues": {"pollInterval": "1s"}});
    fixture.spawner("fixer", &when, &json!({})).await?;
    let items = Api::<WorkItem>::namespaced(fixture.cp.client_as_taskgate(), fixture.ns.name());
    let names = try_join_all((0..ITEMS).map(|number| open_item(&items, number))).await?;
    let watched = async {
        let first = listed(&fixture, ITEMS).await?;
        let mark = fixture.cp.audit().mark()?;
        // The changes go on, and none of them concerns the condition.
        sleep(Duration::from_secs(35)).await;
        let events = fixture.cp.audit().since(mark).await?;
        let writes = events.iter().filter(|event| {
            let about = &event.object_ref;
            let is_own = about.namespace == fixture.ns.name() && event.user_agent.starts_with("taskgate/");
            event.is_write() && is_own && about.resource == "taskspawners"
        });
        ensure!(writes.count() == 0, "it is written again");
        items
            .patch_status(
                &names[0],
                &PatchParams::default(),
                &Patch::Merge(json!({"status": {"breaker": "Closed", "consecutiveFailures": 0}})),
            )
            .await?;
        let second = listed(&fixture, ITEMS - 1).await?;
        println!("the condition followed {first:?} after the last item opened, and {second:?} after one closed");
        anyhow::Ok(())
    };
    tokio::select! {
        result = churn(&items, &names) => result.context("the changes ended"),
        result = watched => result,
    }
}
