//! The proof: as many writes as there is time for, each on both ways, and no difference.

use std::{collections::HashMap, process::Stdio, time::Instant};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{HeaderMap, StatusCode};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use taskgate_e2e::{AuditEvent, binary, is_soak, seed};
use tokio::{fs, process::Command};

use crate::{
    compare::Comparison,
    draw::{Chance, USERS},
    world::World,
};

/// How often a write is sent that taskgate does not answer in time.
const ROUNDS: usize = 3;
/// How many writes are in flight.
const CONCURRENCY: usize = 8;

/// One write.
pub(crate) struct Sample {
    pub(crate) namespace: String,
    pub(crate) user: &'static str,
    pub(crate) object: Value,
}

/// What the API server said.
pub(crate) struct Said {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// How many writes: all of them in `make soak`.
fn count() -> usize {
    if is_soak() { 10_500 } else { 1_500 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_and_check_agree() -> anyhow::Result<()> {
    let seed = seed();
    println!("SEED={seed}, {} writes", count());
    let mut chance = Chance::new(seed);
    let world = World::start(&mut chance).await?;
    let samples: Vec<_> = (0..count()).map(|number| sample(&world, &mut chance, number)).collect();
    let began = Instant::now();
    let mut said = Vec::new();
    let mut left: Vec<_> = (0..samples.len()).collect();
    for _ in 0..ROUNDS {
        let (answered, unanswered) = send(&world, &samples, left).await?;
        said.extend(answered);
        left = unanswered;
        println!("{} answered after {:?}", said.len(), began.elapsed());
        if left.is_empty() {
            break;
        }
    }
    ensure!(left.is_empty(), "taskgate does not answer {left:?} in time");
    said.sort_by_key(|(number, _, _)| *number);
    ensure!(world.gate.process().is_running(), "taskgate has ended");
    let judged = check(&world, &world.objects, &samples).await?;
    let comparison = Comparison::of(&samples, &said, &judged)?;
    println!("{comparison}, after {:?}", began.elapsed());
    ensure!(comparison.differences.is_empty(), "SEED={seed}: {}", comparison.shown());
    for (what, plant) in PLANTED {
        let mut objects = world.objects.clone();
        objects.iter_mut().for_each(plant);
        ensure!(objects != world.objects, "{what}: nothing was planted");
        let judged = check(&world, &objects, &samples).await?;
        let found = Comparison::of(&samples, &said, &judged)?.differences.len();
        println!("{what}: {found} differences");
        ensure!(found > 0, "{what}: it makes no difference");
    }
    Ok(())
}

/// A change of one object.
type Change = fn(&mut Value);

/// What is changed in the files alone: a proof that finds nothing then would prove nothing.
const PLANTED: [(&str, Change); 3] = [
    ("a registration without conditions", |object| {
        for webhook in object["webhooks"].as_array_mut().into_iter().flatten() {
            webhook["matchConditions"] = json!([]);
        }
    }),
    ("items that never failed", |object| {
        if object["kind"] == "WorkItem" {
            object["status"] = json!({});
        }
    }),
    ("policies that only observe", |object| {
        if object["spec"]["mode"] == "Enforce" {
            object["spec"]["mode"] = json!("Observe");
        }
    }),
];

fn sample(world: &World, chance: &mut Chance, number: usize) -> Sample {
    let index = usize::try_from(chance.below(u32::try_from(world.namespaces.len()).unwrap_or(1))).unwrap_or_default();
    let mut object = match (chance.below(10), world.tasks.get(index)) {
        (0..3, Some(owners)) if !owners.is_empty() => {
            let owner = chance.one_of(owners).clone();
            chance.job(number, &owner)
        }
        (3, _) => chance.written(number),
        _ => chance.task(number),
    };
    let namespace = world.namespaces[index].clone();
    if object["kind"] != "ClusterTaskPolicy" {
        object["metadata"]["namespace"] = json!(namespace);
    }
    Sample {
        namespace,
        user: chance.user(),
        object,
    }
}

/// Sends `numbers` of them as dry runs, each under a name of its own in the audit log. Apart from the answers: the writes that
/// passed because taskgate did not answer in time, for those have no verdict.
async fn send(
    world: &World,
    samples: &[Sample],
    numbers: Vec<usize>,
) -> anyhow::Result<(Vec<(usize, Said, AuditEvent)>, Vec<usize>)> {
    let client = world.cp.client();
    let mark = world.cp.audit().mark()?;
    let sent = numbers.into_iter().map(|number| {
        let client = &client;
        async move { anyhow::Ok((number, write(client, number, &samples[number]).await?)) }
    });
    let said: Vec<_> = stream::iter(sent).buffered(CONCURRENCY).try_collect().await?;
    let events = world.cp.audit().since(mark).await?.into_iter();
    let mut events: HashMap<_, _> = events.filter_map(|event| Some((number_of(&event)?, event))).collect();
    let mut answered = Vec::new();
    let mut unanswered = Vec::new();
    for (number, said) in said {
        let event = events.remove(&number);
        let event = event.with_context(|| format!("write {number} is not in the audit log"))?;
        if event.annotations.keys().any(|key| key.starts_with("failed-open.")) {
            unanswered.push(number);
        } else {
            answered.push((number, said, event));
        }
    }
    Ok((answered, unanswered))
}

async fn write(client: &Client, number: usize, sample: &Sample) -> anyhow::Result<Said> {
    let Sample {
        namespace,
        user,
        object,
    } = sample;
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let path = match object["kind"].as_str() {
        Some("Task") => format!("/apis/{version}/namespaces/{namespace}/tasks"),
        Some("Job") => format!("/apis/{version}/namespaces/{namespace}/jobs"),
        Some("TaskPolicy") => format!("/apis/{version}/namespaces/{namespace}/taskpolicies"),
        _ => format!("/apis/{version}/clustertaskpolicies"),
    };
    let request = http::Request::post(format!("{path}?dryRun=All&fieldValidation=Strict"))
        .header("content-type", "application/json")
        .header("user-agent", format!("offline/{number}"))
        .header("impersonate-user", *user)
        .header("impersonate-group", "system:masters")
        .body(Body::from(object.to_string().into_bytes()))?;
    let (parts, body) = client.send(request).await?.into_parts();
    let body = serde_json::from_slice(&body.collect_bytes().await?)?;
    Ok(Said {
        status: parts.status,
        headers: parts.headers,
        body,
    })
}

fn number_of(event: &AuditEvent) -> Option<usize> {
    event.user_agent.strip_prefix("offline/")?.parse().ok()
}

/// What `taskgate check` says of all of them: a run per user, and one for policies, which would govern the Tasks.
async fn check(world: &World, objects: &[Value], samples: &[Sample]) -> anyhow::Result<Vec<Value>> {
    let dir = world.cp.dir().join("offline");
    fs::create_dir_all(&dir).await?;
    let with = dir.join("cluster.json");
    fs::write(&with, list(objects.iter())).await?;
    let mut judged = vec![Value::Null; samples.len()];
    for user in USERS {
        for policies in [false, true] {
            let mine: Vec<_> = samples
                .iter()
                .enumerate()
                .filter(|(_, sample)| sample.user == user && is_policy(&sample.object) == policies)
                .collect();
            let file = dir.join("writes.json");
            fs::write(&file, list(mine.iter().map(|(_, sample)| &sample.object))).await?;
            let output = Command::new(binary("taskgate")?)
                .arg("check")
                .arg(&file)
                .arg("--with")
                .arg(&with)
                .args([
                    "--complete",
                    "--as",
                    user,
                    "--as-group",
                    "system:masters",
                    "-o",
                    "json",
                    "--ci",
                    "none",
                ])
                .stdin(Stdio::null())
                .output()
                .await?;
            let code = output.status.code();
            ensure!(
                matches!(code, Some(0 | 1 | 3)),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let report: Value = serde_json::from_slice(&output.stdout)?;
            let objects = report["objects"].as_array().context("objects")?;
            ensure!(
                objects.len() == mine.len(),
                "{} of {}: {}",
                objects.len(),
                mine.len(),
                report["summary"]
            );
            for ((number, _), object) in mine.into_iter().zip(objects) {
                judged[number] = object.clone();
            }
        }
    }
    Ok(judged)
}

fn is_policy(object: &Value) -> bool {
    object["kind"] != "Task" && object["kind"] != "Job"
}

fn list<'a>(objects: impl Iterator<Item = &'a Value>) -> Vec<u8> {
    json!({"apiVersion": "v1", "kind": "List", "items": objects.collect::<Vec<_>>()})
        .to_string()
        .into_bytes()
}
