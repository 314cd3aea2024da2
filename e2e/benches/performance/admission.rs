//! What admission adds to the creation of a Job and of a Task: taskgate beside webhooks that do less, and beside one that does the
//! same in Go. All of them are registered with one API server, each for a namespace of its own.
//!
//! The requests are dry runs, so that neither storage nor controllers take part, over one kept-alive connection. Each turn measures
//! one request of each arm; the difference of an arm is to the request without admission of the same turn, so that what disturbs
//! the machine for longer than a turn disturbs both. A request of the same arm precedes each measured one: several arms call
//! the same process, which would otherwise find its code and data in the processor's caches where others do not.

use std::{collections::HashMap, fmt::Write as _, time::Instant};

use anyhow::{Context as _, ensure};
use kelos_standin::CRDS;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_api::WorkItem;
use taskgate_e2e::{
    ControlPlane, Gate, Namespace, PATIENCE, TASKGATE, eventually, failures, job_of, merged, policy, task_of_item,
};

use crate::{Size, statistics::Sample, twin::TwinWebhooks};

/// Requests of each arm before it is measured.
const WARM_UP: usize = 100;
/// The limit of failures of an item.
const LIMIT: u32 = 3;

/// One way to create an object.
struct Arm {
    name: &'static str,
    path: String,
    body: Vec<u8>,
    /// Where the answer shows what admission did, and what it shows.
    effect: (&'static str, Value),
    /// Milliseconds.
    took: Vec<f64>,
}

impl Arm {
    fn new(name: &'static str, namespace: &Namespace, object: &Value, effect: (&'static str, Value)) -> Self {
        let path = match object["kind"].as_str() {
            Some("Job") => format!("/apis/batch/v1/namespaces/{namespace}/jobs?dryRun=All"),
            _ => format!("/apis/kelos.dev/v1alpha2/namespaces/{namespace}/tasks?dryRun=All"),
        };
        let body = object.to_string().into_bytes();
        Self {
            name,
            path,
            body,
            effect,
            took: Vec::new(),
        }
    }

    /// The answer of the API server.
    async fn send(&self, client: &Client) -> anyhow::Result<String> {
        let request = http::Request::post(&self.path).header(http::header::CONTENT_TYPE, "application/json");
        Ok(client.request_text(request.body(self.body.clone())?).await?)
    }

    /// Waits until admission does what it should.
    async fn settle(&self, client: &Client) -> anyhow::Result<()> {
        eventually(
            format!("{}: {} is {}", self.name, self.effect.0, self.effect.1),
            PATIENCE,
            || async {
                let answer: Value = serde_json::from_str(&self.send(client).await?)?;
                let found = answer.pointer(self.effect.0).unwrap_or(&Value::Null);
                ensure!(*found == self.effect.1, "{answer}");
                Ok(())
            },
        )
        .await
    }
}

/// Measures both kinds.
pub(crate) async fn measure(size: Size) -> anyhow::Result<String> {
    let plane = ControlPlane::builder()
        .crds(CRDS)
        .crds(include_str!("kueue.yaml"))
        .audit(false);
    let cp = plane.start().await?;
    let _gate = Gate::builder().without_leader_election().start(&cp).await?;
    let twin = TwinWebhooks::start(&cp).await?;
    let arms = include_str!("arms.yaml")
        .replace("$URL", &twin.url)
        .replace("$CA", &twin.ca);
    cp.apply_yaml(&arms).await?;
    let namespaces = Namespaces::create(&cp).await?;
    let client = cp.client();
    let mut text = format!(
        "Added to a server-side dry run of a create, over one kept-alive connection: the median of the paired differences to the same
request without admission, with its 95 % confidence interval. {} rounds of {} requests of each arm, interleaved, each after one
of the same arm.\n",
        size.rounds, size.requests
    );
    for mut arms in [namespaces.jobs().await?, namespaces.tasks()] {
        for arm in &arms {
            arm.settle(&client).await?;
        }
        take_turns(&client, &mut arms, WARM_UP).await?;
        for arm in &mut arms {
            arm.took.clear();
        }
        for _ in 0..size.rounds {
            take_turns(&client, &mut arms, size.requests).await?;
        }
        text.push_str(&table(&arms)?);
    }
    Ok(text)
}

/// Sends `count` requests of each arm in turns, each of which begins with another arm.
async fn take_turns(client: &Client, arms: &mut [Arm], count: usize) -> anyhow::Result<()> {
    for turn in 0..count {
        for index in 0..arms.len() {
            let index = (turn + index) % arms.len();
            arms[index].send(client).await?;
            let began = Instant::now();
            arms[index].send(client).await?;
            arms[index].took.push(began.elapsed().as_secs_f64() * 1000.0);
        }
    }
    Ok(())
}

/// The first arm is the one without admission.
fn table(arms: &[Arm]) -> anyhow::Result<String> {
    let (base, others) = arms.split_first().context("no arm")?;
    let mut text = format!(
        "\n| {} | Added p50 | 95 % interval | Added p99 |\n|---|---|---|---|\n",
        base.name
    );
    for arm in others {
        let added = Sample::new(
            arm.took
                .iter()
                .zip(&base.took)
                .map(|(with, without)| with - without)
                .collect(),
        );
        let (low, high) = added.interval();
        let (median, p99) = (added.median(), added.percentile(99));
        writeln!(
            text,
            "| {} | {median:+.2} ms | {low:+.2} to {high:+.2} | {p99:+.1} ms |",
            arm.name
        )?;
    }
    let all = Sample::new(base.took.clone());
    let (median, p99) = (all.median(), all.percentile(99));
    writeln!(text, "\nThe request itself: p50 {median:.2} ms, p99 {p99:.1} ms.")?;
    Ok(text)
}

/// Namespaces by the name of their arm.
struct Namespaces(HashMap<&'static str, Namespace>);

impl Namespaces {
    /// taskgate is disabled for all but its own two.
    async fn create(cp: &ControlPlane) -> anyhow::Result<Self> {
        let mut namespaces = HashMap::new();
        for arm in ["none", "null", "constant", "cel", "twin"] {
            let labels = [("bench", arm), ("taskgate.dev/admission", "disabled")];
            namespaces.insert(arm, cp.namespace_with_labels(arm, &labels).await?);
        }
        for arm in ["taskgate", "unlimited"] {
            namespaces.insert(arm, cp.namespace(arm).await?);
        }
        let queue = json!({"queueName": "agents"});
        let limited = merged(queue.clone(), &json!({"failurePolicy": {"maxRetriesPerItem": LIMIT}}));
        for (arm, spec) in [("twin", &limited), ("taskgate", &limited), ("unlimited", &queue)] {
            namespaces[arm].apply_yaml(&policy("bench", spec).to_string()).await?;
        }
        let queue =
            json!({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue", "metadata": {"name": "agents"}});
        namespaces["taskgate"].apply_yaml(&queue.to_string()).await?;
        let namespaces = Self(namespaces);
        namespaces.fail_twice(cp).await?;
        Ok(namespaces)
    }

    /// Lets the item `near` fail until the next failure reaches the limit.
    async fn fail_twice(&self, cp: &ControlPlane) -> anyhow::Result<()> {
        let (taskgate, twin) = (&self.0["taskgate"], &self.0["twin"]);
        for count in 1..LIMIT {
            let name = format!("near-{count}");
            taskgate.created(&task_of_item(&name, "near")).await?;
            taskgate.patch_failed(&name, &json!({})).await?;
            let failed = |item: &WorkItem| failures(item) == count;
            taskgate.await_work_item("near", "failed", failed).await?;
        }
        // The twin finds a WorkItem by the name of the item.
        let item = json!({
            "apiVersion": TASKGATE, "kind": "WorkItem", "metadata": {"name": "near"}, "spec": {"key": "near", "item": "near"},
        });
        twin.created(&item).await?;
        let items = Api::<WorkItem>::namespaced(cp.client_as_taskgate(), twin.name());
        let status = Patch::Merge(json!({"status": {"consecutiveFailures": LIMIT - 1}}));
        items.patch_status("near", &PatchParams::default(), &status).await?;
        Ok(())
    }

    async fn jobs(&self) -> anyhow::Result<Vec<Arm>> {
        let mut arms = Vec::new();
        for (name, arm, is_suspended) in [
            ("Job", "none", false),
            ("null webhooks (mutating and validating)", "null", false),
            ("webhook with a constant patch", "constant", true),
            ("MutatingAdmissionPolicy (CEL)", "cel", true),
            ("controller-runtime webhook, cached", "twin", true),
            ("taskgate", "taskgate", true),
        ] {
            let owner = self.0[arm].created(&task_of_item("owner", "owner")).await?;
            let effect = ("/spec/suspend", json!(is_suspended));
            arms.push(Arm::new(name, &self.0[arm], &job_of(&owner), effect));
        }
        Ok(arms)
    }

    fn tasks(&self) -> Vec<Arm> {
        let labelled = ("/metadata/labels/bench~1work-item", json!("near"));
        let unchanged = ("/metadata/annotations/taskgate.dev~1item", json!("far"));
        let finalizer = ("/metadata/finalizers/0", json!("taskgate.dev/accounting"));
        let arms = [
            ("Task", "none", "far", &unchanged),
            ("null webhooks (mutating and validating)", "null", "far", &unchanged),
            ("controller-runtime webhooks, cached", "twin", "near", &labelled),
            ("taskgate, a policy without a limit", "unlimited", "far", &unchanged),
            ("taskgate, far from the limit", "taskgate", "far", &finalizer),
            ("taskgate, one failure below the limit", "taskgate", "near", &finalizer),
        ];
        let arm = |(name, arm, item, effect): (_, _, _, &(_, _))| {
            Arm::new(name, &self.0[arm], &task_of_item("created", item), effect.clone())
        };
        arms.map(arm).into()
    }
}
