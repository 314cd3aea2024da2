//! How many requests accounting costs, by the API server's audit log.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::stream::{self, TryStreamExt as _};
use kelos_standin::types::TaskSpawner;
use rand::{SeedableRng as _, rngs::StdRng};
use taskgate_e2e::{Gate, PATIENCE, eventually, is_soak, never};

use crate::item::{Item, Seen, poll};
use crate::support::{FaultFixture, LIMITED, UNLIMITED};

/// How many items there are.
const ITEMS: usize = 200;
/// How many of them fail until half of these are tripped.
const STUCK_ITEMS: usize = 40;
/// How many drivers are at work at the same time.
const DRIVERS: usize = 16;

/// While idle only the Lease of several replicas is written: there is one replica here.
#[tokio::test]
async fn a_failure_costs_at_most_two_writes_of_its_item_and_idling_none() -> anyhow::Result<()> {
    let fixture = FaultFixture::start().await?;
    let _gate = Gate::builder().without_leader_election().start(&fixture.cp).await?;
    fixture.govern().await?;
    let seen = Seen::nothing();
    let mut items: Vec<_> = (0..ITEMS)
        .map(|number| {
            let spawner = if number % 2 == 0 { LIMITED } else { UNLIMITED };
            let rng = StdRng::seed_from_u64(0);
            Item::new(&fixture, seen.subscribe(), spawner, number + 1, rng)
        })
        .collect();
    let rounds = async {
        let first = ["create workitems", "patch workitems/status"];
        count_writes(&fixture, &mut items, &first).await?;
        for _ in 1..LIMITED.limit {
            count_writes(&fixture, &mut items[..STUCK_ITEMS], &first[1..]).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        result = rounds => result?,
        never = poll(fixture.ns.tasks(), &seen) => match never {},
    }

    // Some Tasks are running meanwhile.
    for item in &mut items[STUCK_ITEMS..STUCK_ITEMS + 10] {
        item.create().await?;
    }
    let open = format!("{} items skipped", STUCK_ITEMS / 2);
    eventually("the spawner's condition counts all", PATIENCE, || async {
        let spawner = fixture.ns.api::<TaskSpawner>().get(LIMITED.name).await?;
        let told = serde_json::to_string(&spawner.status)?;
        ensure!(told.contains(&open), "{told}");
        Ok(())
    })
    .await?;
    let before = fixture.cp.settled_revision().await?;
    let idle = Duration::from_secs(if is_soak() { 60 } else { 15 });
    never("something is written while idle", idle, || async {
        let now = fixture.cp.etcd_revision().await?;
        Ok((now != before).then_some(now - before))
    })
    .await
}

/// Lets a Task fail for each of `items`, and expects exactly the writes `expected` to the WorkItem of each, and no other
/// write to taskgate's own objects.
async fn count_writes(fixture: &FaultFixture, items: &mut [Item<'_>], expected: &[&str]) -> anyhow::Result<()> {
    let failures = items.len();
    let mark = fixture.cp.audit().mark()?;
    stream::iter(items.iter_mut().map(Ok))
        .try_for_each_concurrent(DRIVERS, async |item| {
            item.create().await?;
            item.fail().await?;
            item.settles().await
        })
        .await?;
    fixture.cp.settled_revision().await?;
    let mut writes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in fixture.cp.audit().since(mark).await? {
        let about = &event.object_ref;
        if event.is_write() && !event.is_dry_run() && about.api_group == "taskgate.dev" {
            let resource = [about.resource.as_str(), about.subresource.as_str()].join("/");
            let name = match &event.request_object {
                // A create's name is in its body.
                Some(object) if about.name.is_empty() => object["metadata"]["name"].as_str().context("no name")?,
                _ => &about.name,
            };
            let write = format!("{} {}", event.verb, resource.trim_end_matches('/'));
            writes.entry(name.to_owned()).or_default().push(write);
        }
    }
    ensure!(writes.len() == failures, "{failures} failures, writes: {writes:#?}");
    let odd: Vec<_> = writes.iter().filter(|(_, writes)| *writes != expected).collect();
    ensure!(odd.is_empty(), "expected {expected:?} for each failure, but: {odd:#?}");
    for item in items {
        item.check().await?;
    }
    Ok(())
}
