//! Writes as dry runs to the API server.

use std::collections::HashMap;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{HeaderMap, Method, StatusCode};
use kube::{Client, client::Body};
use serde_json::Value;
use taskgate_e2e::AuditEvent;

use crate::{cluster::RandomCluster, differential::Sample};

/// How many writes are in flight.
const CONCURRENCY: usize = 8;

/// The API server's answer.
pub(crate) struct Said {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// Sends `numbers` of them as dry runs, each under a name of its own in the audit log. Apart from the answers: the writes that
/// passed because taskgate did not answer in time, as those have no decision.
pub(crate) async fn send(
    cluster: &RandomCluster,
    samples: &[Sample],
    numbers: Vec<usize>,
) -> anyhow::Result<(Vec<(usize, Said, AuditEvent)>, Vec<usize>)> {
    let client = cluster.cp.client();
    let mark = cluster.cp.audit().mark()?;
    let sent = numbers.into_iter().map(|number| {
        let client = &client;
        async move { anyhow::Ok((number, write(client, number, &samples[number]).await?)) }
    });
    let said: Vec<_> = stream::iter(sent).buffered(CONCURRENCY).try_collect().await?;
    let events = cluster.cp.audit().since(mark).await?.into_iter();
    let mut events: HashMap<_, _> = events.filter_map(|event| Some((number_of(&event)?, event))).collect();
    let mut answered = Vec::new();
    let mut unanswered = Vec::new();
    for (number, said) in said {
        let event = events.remove(&number);
        let event = event.with_context(|| format!("write {number} is not in the audit log"))?;
        let failed_closed = said.body["message"]
            .as_str()
            .is_some_and(|message| message.contains("failed calling webhook"));
        if failed_closed || event.annotations.keys().any(|key| key.starts_with("failed-open.")) {
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
        ..
    } = sample;
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let plural = plural(object);
    let place = match plural {
        "clustertaskpolicies" => format!("/apis/{version}/{plural}"),
        _ => format!("/apis/{version}/namespaces/{namespace}/{plural}"),
    };
    let (method, path) = if sample.is_update() {
        let name = object["metadata"]["name"].as_str().context("it has a name")?;
        (Method::PUT, format!("{place}/{name}"))
    } else {
        (Method::POST, place)
    };
    let mut request = http::Request::builder()
        .method(method)
        .uri(format!("{path}?dryRun=All&fieldValidation=Strict"))
        .header("content-type", "application/json")
        .header("user-agent", format!("offline/{number}"))
        .header("impersonate-user", user.name);
    for group in user.groups {
        request = request.header("impersonate-group", *group);
    }
    let request = request.body(Body::from(object.to_string().into_bytes()))?;
    let (parts, body) = client.send(request).await?.into_parts();
    let body = serde_json::from_slice(&body.collect_bytes().await?)?;
    Ok(Said {
        status: parts.status,
        headers: parts.headers,
        body,
    })
}

/// The resource of objects like this one.
pub(crate) fn plural(object: &Value) -> &'static str {
    match object["kind"].as_str() {
        Some("Task") => "tasks",
        Some("Job") => "jobs",
        Some("WorkItem") => "workitems",
        Some("TaskPolicy") => "taskpolicies",
        _ => "clustertaskpolicies",
    }
}

fn number_of(event: &AuditEvent) -> Option<usize> {
    event.user_agent.strip_prefix("offline/")?.parse().ok()
}
