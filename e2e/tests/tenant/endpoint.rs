//! Attacks by a pod that reaches the admission port.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::{
    StreamExt as _,
    future::{join_all, try_join_all},
    stream,
};
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use taskgate_e2e::{KELOS, Peer, TASKGATE, TlsStream, never, resource, task_of_item};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::TenantFixture;

/// More than the reviews that may be in flight.
const CONNECTIONS: usize = 300;
/// How long connections are held once all are open.
const HELD: Duration = Duration::from_secs(3);
/// Until a peer that sends nothing must have been cut off.
const CUT_OFF: Duration = Duration::from_secs(15);
/// How many bodies end at the same time.
const AT_ONCE: usize = 8;
/// The largest body that is read.
const LARGEST: usize = 8 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_peers_that_never_finish_their_bodies_block_no_other() -> anyhow::Result<()> {
    let fixture = TenantFixture::start("idle").await?;
    let peer = &fixture.peer().await?;
    fixture
        .attack(async {
            // A connection that is refused or cut delays no other.
            let handshakes = stream::iter(0..CONNECTIONS).map(|_| async { peer.dial().await.ok() });
            let silent: Vec<_> = handshakes.buffer_unordered(16).collect().await;
            let begun = stream::iter(0..CONNECTIONS)
                .map(|_| async { peer.begin("/mutate/tasks?timeout=30s", 10_000).await.ok() });
            let begun: Vec<_> = begun.buffer_unordered(16).collect().await;
            sleep(HELD).await;
            drop((silent, begun));
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_does_not_choose_how_long_it_is_waited_for() -> anyhow::Result<()> {
    let fixture = TenantFixture::start("timeout").await?;
    let peer = fixture.peer().await?;
    fixture
        .attack(async {
            let waits = ["30s", "1000h", "9223372036s", "-1s", "999999999999999999999h"].map(async |patience| {
                let path = format!("/mutate/tasks?timeout={patience}");
                let mut stream = peer.begin(&path, 10_000).await?;
                let mut answer = Vec::new();
                let end = timeout(CUT_OFF, stream.read_to_end(&mut answer)).await;
                ensure!(end.is_ok(), "timeout={patience}: it still waits after {CUT_OFF:?}");
                let answer = String::from_utf8_lossy(&answer);
                ensure!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
                Ok(())
            });
            try_join_all(waits).await.map(drop)
        })
        .await
}

/// JSON that is small on the wire and large in memory. All bodies but for their last bytes are there before the first one ends,
/// so that they are parsed at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_grow_when_they_are_parsed_stay_within_the_memory_limit() -> anyhow::Result<()> {
    let fixture = TenantFixture::start("large").await?;
    let peer = &fixture.peer().await?;
    let rounds: Vec<_> = [LARGEST, LARGEST / 4]
        .into_iter()
        .flat_map(|size| ["0,", "{\"\":0},", "\"\","].map(|item| large(item, size)))
        .collect();
    fixture
        .attack(async {
            for (n, body) in rounds.iter().enumerate() {
                let path = ["/mutate/tasks", "/validate/policies"][n % 2];
                let begun = (0..AT_ONCE).map(|_| begin(peer, path, body));
                let begun = join_all(begun).await;
                // Refused with a status or by a cut connection: either is an answer.
                join_all(begun.into_iter().flatten().map(|stream| end(stream, body))).await;
            }
            Ok(())
        })
        .await
}

/// Sends all of `body` but for its last byte; `None` when that is refused.
async fn begin(peer: &Peer, path: &str, body: &str) -> Option<TlsStream<TcpStream>> {
    let mut stream = peer.begin(path, body.len()).await.ok()?;
    stream.write_all(body.as_bytes().get(1..body.len() - 1)?).await.ok()?;
    stream.flush().await.ok()?;
    Some(stream)
}

/// Sends the last byte, and waits for the answer.
async fn end(mut stream: TlsStream<TcpStream>, body: &str) -> Option<()> {
    stream.write_all(body.as_bytes().get(body.len() - 1..)?).await.ok()?;
    let mut answer = Vec::new();
    timeout(CUT_OFF, stream.read_to_end(&mut answer))
        .await
        .ok()?
        .ok()
        .map(drop)
}

/// A review of `size` bytes whose object is a list of `item`.
fn large(item: &str, size: usize) -> String {
    let review = review(
        "CREATE",
        "large",
        "default",
        &json!({"spec": {"list": ["LIST"]}}),
        &Value::Null,
        "mallory",
    )
    .to_string();
    let items = item.repeat((size - review.len()) / item.len());
    review.replace("\"LIST\"", items.trim_end_matches(','))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_review_changes_no_state() -> anyhow::Result<()> {
    let fixture = TenantFixture::start("reviews").await?;
    let peer = &fixture.peer().await?;
    let paths = &paths(&fixture).await?;
    let victim = fixture.victim.tenant();
    let tasks = victim.api(KELOS, "Task");
    let items = victim
        .api(TASKGATE, "WorkItem")
        .list(&ListParams::default())
        .await?
        .items;
    let failing = items
        .iter()
        .find(|item| item.data["spec"]["item"] == "failing")
        .context("no item")?;
    let running = victim.create(&task_of_item("running", "running")).await?;
    let running = serde_json::to_value(&running)?;
    let mut cancelled = running.clone();
    cancelled["metadata"]["annotations"]["taskgate.dev/cancel"] = json!("forged");

    let ns = victim.ns().name();
    let (item, null) = (serde_json::to_value(failing)?, Value::Null);
    let mut reviews = vec![
        review("DELETE", &failing.name_any(), ns, &null, &item, "mallory"),
        review("UPDATE", "running", ns, &cancelled, &running, "mallory"),
        review("UPDATE", "running", ns, &cancelled, &running, "system:admin"),
        review("CREATE", "running", ns, &cancelled, &null, "mallory"),
    ];
    for n in 0..5 {
        let name = format!("ghost-{n}");
        let mut ghost = task_of_item(&name, "failing");
        ghost["metadata"]["namespace"] = json!(ns);
        reviews.push(review("CREATE", &name, ns, &ghost, &null, "mallory"));
    }
    fixture
        .attack(async {
            for review in &reviews {
                for path in paths {
                    post(peer, path, review).await?;
                }
            }
            // One of two places of the item is free, whatever ghosts claim it.
            victim
                .create(&task_of_item("failing-2", "failing"))
                .await
                .context("a Task below the limit")?;
            let running = tasks.get("running").await?;
            ensure!(
                !running.annotations().contains_key("taskgate.dev/cancel"),
                "{running:?}"
            );
            Ok(())
        })
        .await?;

    // Now it is deleted indeed, by another user: the forged name must not appear.
    victim
        .api(TASKGATE, "WorkItem")
        .delete(&failing.name_any(), &DeleteParams::default())
        .await?;
    let events = victim.ns().dynamic_api(&resource("events.k8s.io/v1", "Event"));
    never("an Event names who forged a review", Duration::from_secs(3), || async {
        let events = events.list(&ListParams::default()).await?.items;
        let notes = events.into_iter().map(|event| event.data["note"].to_string());
        Ok(notes.into_iter().find(|note| note.contains("mallory")))
    })
    .await
}

/// Every path that is registered, and those that were.
async fn paths(fixture: &TenantFixture) -> anyhow::Result<Vec<String>> {
    let name = "admission.taskgate.dev";
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(fixture.cp.client());
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(fixture.cp.client());
    let mutating = mutating.get(name).await?.webhooks.unwrap_or_default();
    let validating = validating.get(name).await?.webhooks.unwrap_or_default();
    let configs = mutating.into_iter().map(|webhook| webhook.client_config);
    let configs = configs.chain(validating.into_iter().map(|webhook| webhook.client_config));
    let urls: Vec<_> = configs.filter_map(|config| config.url).collect();
    let path = |url: &String| url.strip_prefix(fixture.gate.url()).map(ToOwned::to_owned);
    let mut paths: Vec<_> = urls.iter().filter_map(path).collect();
    ensure!(!paths.is_empty(), "no path in {urls:?}");
    paths.push("/validate/workitems/deleted".to_owned());
    paths.sort();
    paths.dedup();
    Ok(paths)
}

async fn post(peer: &Peer, path: &str, review: &Value) -> anyhow::Result<()> {
    let (status, answer) = peer.post(path, &review.to_string()).await?;
    ensure!(status < 500, "{path}: {answer}");
    Ok(())
}

/// An `AdmissionReview` as the API server would send it, if it did.
fn review(operation: &str, name: &str, namespace: &str, object: &Value, old: &Value, user: &str) -> Value {
    let known = if object.is_null() { old } else { object };
    let (group, version) = known["apiVersion"]
        .as_str()
        .and_then(|text| text.split_once('/'))
        .unwrap_or(("kelos.dev", "v1alpha2"));
    let kind = known["kind"].as_str().unwrap_or("Task");
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "0c4b7b0e-7b57-4e2c-9f5f-6a3f2f3f9c11", "operation": operation, "name": name, "namespace": namespace,
        "kind": {"group": group, "version": version, "kind": kind},
        "userInfo": {"username": user, "groups": ["system:authenticated"]},
        "object": object, "oldObject": old, "dryRun": false,
    }})
}
