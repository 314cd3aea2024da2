//! What only the tracker knows (`fromSource`): told when the Task is made, and filled in as soon as the tracker answers, on
//! Task, Job and the pods of a Job that has not started.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::events::v1::Event;
use kelos_standin::{CRDS, CycleResult, Fault, Issue, Key, Options, Scope, Seen, Standin, client};
use kube::api::ListParams;
use serde_json::{Value, json};
use taskgate_api::TaskPolicy;
use taskgate_e2e::{ControlPlane, Gate, Marker, PATIENCE, Shared, eventually, never};
use tokio::sync::OnceCell;

use crate::{
    recipes::recipe,
    world::{GITHUB, World, annotations, gate, labels, task},
};

static OWN: Shared = Shared::new(|| ControlPlane::builder().crds(CRDS));
static OWN_GATE: OnceCell<Gate> = OnceCell::const_new();

pub(crate) const PENDING: &str = "taskgate.dev/metadata-pending";
/// What `priority/critical` becomes as a label.
const CRITICAL: &str = "priority-critical-a2ab1192";

/// Seed 004, `taskTemplate.metadata`, word for word; and that the tracker may be asked.
fn example() -> Value {
    json!({
        "engine": "GoTemplate",
        "labels": {
            "kelos.dev/source-kind": "{{.Kind}}",
            "kelos.dev/priority": "{{index .Labels 0}}",
            "team.example.com/area": "backend",
        },
        "annotations": {
            "kelos.dev/source-url": "{{.URL}}",
            "kelos.dev/source-title": "{{.Title}}",
        },
        "fromSource": true,
    })
}

pub(crate) fn titled(propagate: &Value) -> Value {
    json!({"labels": {"title": "{{ item.title }}"}, "fromSource": true, "propagate": propagate})
}

/// A world whose Workspace is a repository of the stand-in of GitHub, with issue 42.
pub(crate) struct Tracker {
    pub(crate) world: World,
    issue: Issue,
}

impl Tracker {
    async fn start(hint: &str, spec: Value) -> anyhow::Result<Self> {
        Self::of(World::start(hint).await?, spec).await
    }

    pub(crate) async fn of(world: World, spec: Value) -> anyhow::Result<Self> {
        let repo = GITHUB.get().await?.repo(world.ns.name(), "r");
        let workspace = json!({"apiVersion": "kelos.dev/v1alpha2", "kind": "Workspace", "metadata": {"name": "shop"},
            "spec": {"repo": repo.clone_url()}});
        world.ns.apply_yaml(&workspace.to_string()).await?;
        let when = json!({"spec": {"when": {"githubIssues": {"pollInterval": "1s"}}}}).to_string();
        let patch = ["patch", "taskspawner", "fixer", "--type=merge", "-p", &when];
        world.ns.kubectl(patch).await?.stdout_ok()?;
        let issue = repo.issue(42);
        issue.title("Fix the login page").author("octocat");
        issue.labels(["priority/critical", "bug"]);
        world.policy("agents", spec).await?;
        Ok(Self { world, issue })
    }

    fn path(&self) -> String {
        format!("/repos/{}/r", self.world.ns.name())
    }

    /// The tracker fails taskgate, and nobody else.
    pub(crate) async fn fails(&self) -> anyhow::Result<()> {
        GITHUB
            .get()
            .await?
            .fault(Fault::status(500).of("taskgate/").on(&self.path()));
        Ok(())
    }

    pub(crate) async fn heals(&self) -> anyhow::Result<()> {
        GITHUB.get().await?.heal_on(&self.path());
        Ok(())
    }

    /// What taskgate asked.
    async fn asked(&self) -> anyhow::Result<Vec<Seen>> {
        let mut seen = GITHUB.get().await?.seen();
        seen.retain(|seen| seen.user_agent.starts_with("taskgate/") && seen.path.starts_with(&self.path()));
        Ok(seen)
    }

    pub(crate) async fn get(&self, kind: &str) -> anyhow::Result<Value> {
        let output = self.world.ns.kubectl(["get", kind, "fixer-42", "-ojson"]).await?;
        Ok(serde_json::from_str(&output.stdout_ok()?)?)
    }

    async fn task(&self) -> anyhow::Result<Value> {
        self.get("tasks.kelos.dev").await
    }

    /// The Task once nothing of its labels is to be done any more.
    pub(crate) async fn settled(&self) -> anyhow::Result<Value> {
        eventually("the Task waits for nothing", 2 * PATIENCE, || async {
            let task = self.task().await?;
            ensure!(annotations(&task)[PENDING].is_null(), "{task}");
            Ok(task)
        })
        .await
    }

    /// What taskgate wrote of Tasks and Jobs.
    async fn written(&self, mark: Marker) -> anyhow::Result<Vec<String>> {
        let events = self.world.cp.audit().since(mark).await?.into_iter();
        let ours = events.filter(|event| {
            let object = &event.object_ref;
            let is_subject = matches!(object.resource.as_str(), "tasks" | "jobs");
            let is_here = object.namespace == self.world.ns.name();
            event.is_write() && is_subject && is_here && event.user_agent.starts_with("taskgate")
        });
        Ok(ours.map(|event| event.summary()).collect())
    }

    /// It writes no more than that since `mark`, for `time` from now.
    async fn writes_at_most(&self, most: usize, mark: Marker, time: Duration) -> anyhow::Result<()> {
        never(format!("more than {most} writes"), time, || async {
            let written = self.written(mark).await?;
            Ok((written.len() > most).then_some(written))
        })
        .await
    }
}

#[tokio::test]
async fn the_proposals_example_is_filled_in_verbatim_on_an_unmodified_kelos() -> anyhow::Result<()> {
    let mut section = example();
    section["propagate"] = json!(["Job", "Pod"]);
    let tracker = Tracker::start("verbatim", json!({"queueName": "agents", "metadata": section})).await?;
    let world = &tracker.world;
    tracker.fails().await?;
    let scope = Scope::Namespaces(vec![world.ns.name().to_owned()]);
    let kelos = Standin::start(
        client(world.cp.config())?,
        Options::new(scope, GITHUB.get().await?.url()),
    )
    .await?;
    let go = [
        "patch",
        "taskspawner",
        "fixer",
        "--type=merge",
        "-p",
        r#"{"spec":{"suspend":false}}"#,
    ];
    world.ns.kubectl(go).await?.stdout_ok()?;
    let job = eventually("Kelos makes the Job, and it is in the queue", PATIENCE, || async {
        let job = tracker.get("job").await?;
        ensure!(job["spec"]["suspend"] == true, "{job}");
        Ok(job)
    })
    .await?;
    ensure!(labels(&job)["team.example.com/area"] == "backend", "{job}");
    let url = format!("https://github.com/{}/r/issues/42", world.ns.name());
    ensure!(annotations(&job)["kelos.dev/source-url"] == url, "{job}");
    ensure!(labels(&job)["kelos.dev/priority"].is_null(), "{job}");
    tracker.heals().await?;
    let task = tracker.settled().await?;
    let job = tracker.get("job").await?;
    for object in [&task, &job, &job["spec"]["template"]] {
        ensure!(labels(object)["kelos.dev/source-kind"] == "Issue", "{object}");
        ensure!(labels(object)["kelos.dev/priority"] == CRITICAL, "{object}");
        ensure!(labels(object)["team.example.com/area"] == "backend", "{object}");
        ensure!(annotations(object)["kelos.dev/source-url"] == url, "{object}");
        ensure!(
            annotations(object)["kelos.dev/source-title"] == "Fix the login page",
            "{object}"
        );
    }
    let found = world.found(&format!("kelos.dev/priority={CRITICAL}")).await?;
    ensure!(found == "task.kelos.dev/fixer-42", "{found}");
    ensure!(
        job["spec"]["suspend"] == true && labels(&job)["kueue.x-k8s.io/queue-name"] == "agents",
        "{job}"
    );
    ensure!(kelos.cycles(&Key::new(world.ns.name(), "fixer"), CycleResult::Failure) == 0);
    Ok(())
}

#[tokio::test]
async fn the_example_of_the_docs_is_filled_in() -> anyhow::Result<()> {
    let section = recipe("What only the tracker knows")?;
    let tracker = Tracker::start("docs", json!({"metadata": section})).await?;
    tracker.world.create(&task("fixer-42")).await?;
    eventually("the Task has what the tracker knows", PATIENCE, || async {
        let task = tracker.task().await?;
        ensure!(labels(&task)["kelos.dev/priority"] == CRITICAL, "{task}");
        ensure!(
            annotations(&task)["kelos.dev/source-title"] == "Fix the login page",
            "{task}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_tracker_that_is_down_blocks_nothing_and_is_told_once() -> anyhow::Result<()> {
    let tracker = Tracker::start("down", json!({"metadata": example()})).await?;
    let world = &tracker.world;
    tracker.fails().await?;
    let (stored, warnings) = world.create(&task("fixer-42")).await?;
    let told = "taskgate: TaskPolicy/agents: sets kelos.dev/priority, kelos.dev/source-title after the issue source was \
                read";
    ensure!(warnings == [told], "{warnings:?}");
    ensure!(labels(&stored)["team.example.com/area"] == "backend", "{stored}");
    let waits = "label:kelos.dev/priority annotation:kelos.dev/source-title";
    ensure!(annotations(&stored)[PENDING] == waits, "{stored}");
    ensure!(
        annotations(&stored)["taskgate.dev/metadata-skipped"].is_null(),
        "{stored}"
    );
    let policies = world.ns.api::<TaskPolicy>();
    eventually(
        "the policy says that its source cannot be read",
        2 * PATIENCE,
        || async {
            let status = policies.get("agents").await?.status.unwrap_or_default();
            let readable = |reason: &str| {
                let mut conditions = status.conditions.iter();
                conditions.any(|condition| condition.type_ == "SourceReadable" && condition.reason == reason)
            };
            ensure!(readable("Unreachable"), "{status:?}");
            Ok(())
        },
    )
    .await?;
    let mark = world.cp.audit().mark()?;
    // What ends before the tracker answers gets its labels all the same: somebody has to pay for it.
    let ended = r#"{"status":{"phase":"Succeeded"}}"#;
    let end = [
        "patch",
        "tasks.kelos.dev",
        "fixer-42",
        "--subresource=status",
        "--type=merge",
        "-p",
        ended,
    ];
    world.ns.kubectl(end).await?.stdout_ok()?;
    tracker.writes_at_most(0, mark, Duration::from_secs(4)).await?;
    tracker.heals().await?;
    let task = tracker.settled().await?;
    ensure!(labels(&task)["kelos.dev/priority"] == CRITICAL, "{task}");
    ensure!(task["status"]["phase"] == "Succeeded", "{task}");
    Ok(())
}

#[tokio::test]
async fn without_the_opt_in_nobody_is_asked() -> anyhow::Result<()> {
    let mut section = example();
    section["fromSource"] = json!(false);
    let tracker = Tracker::start("closed", json!({"metadata": section})).await?;
    let (stored, warnings) = tracker.world.create(&task("fixer-42")).await?;
    ensure!(
        warnings.len() == 2 && warnings.iter().all(|warning| warning.contains("left out")),
        "{warnings:?}"
    );
    ensure!(annotations(&stored)[PENDING].is_null(), "{stored}");
    never("taskgate asks", Duration::from_secs(4), || async {
        Ok(tracker.asked().await?.pop())
    })
    .await
}

#[tokio::test]
async fn it_is_filled_in_once_and_a_job_that_comes_later_has_it_from_the_start() -> anyhow::Result<()> {
    let tracker = Tracker::start("once", json!({"metadata": titled(&json!(["Job", "Pod"]))})).await?;
    let world = &tracker.world;
    let mark = world.cp.audit().mark()?;
    world.create(&task("fixer-42")).await?;
    let task = eventually("the Task has its title", PATIENCE, || async {
        let task = tracker.task().await?;
        ensure!(!labels(&task)["title"].is_null(), "{task}");
        Ok(task)
    })
    .await?;
    ensure!(annotations(&task)[PENDING] == "copy", "{task}");
    let title = labels(&task)["title"].clone();
    ensure!(
        title
            .as_str()
            .is_some_and(|title| title.starts_with("Fix-the-login-page-")),
        "{title}"
    );
    // Nobody waits for the tracker any more, and what changes there changes nothing.
    tracker.issue.title("Another title");
    let asked = tracker.asked().await?.len();
    never("taskgate asks again", Duration::from_secs(4), || async {
        Ok((tracker.asked().await?.len() > asked + 1).then_some("asked"))
    })
    .await?;
    let (job, _) = world.create(&World::job_of(&task)).await?;
    ensure!(
        labels(&job)["title"] == title && labels(&job["spec"]["template"])["title"] == title,
        "{job}"
    );
    // Kelos tells of the Job in the Task's status.
    let status = r#"{"status":{"phase":"Pending","jobName":"fixer-42"}}"#;
    let told = [
        "patch",
        "tasks.kelos.dev",
        "fixer-42",
        "--subresource=status",
        "--type=merge",
        "-p",
        status,
    ];
    world.ns.kubectl(told).await?.stdout_ok()?;
    let task = tracker.settled().await?;
    ensure!(labels(&task)["title"] == title, "{task}");
    tracker.writes_at_most(2, mark, Duration::from_secs(2)).await?;
    let written = tracker.written(mark).await?;
    let of = |path: &str| written.iter().filter(|write| write.starts_with(path)).count();
    let (tasks, jobs) = (of("patch kelos.dev/tasks "), of("patch batch/jobs "));
    ensure!((tasks, jobs, written.len()) == (2, 0, 2), "{written:?}");
    Ok(())
}

#[tokio::test]
async fn the_pods_of_a_job_that_has_started_stay_as_they_are() -> anyhow::Result<()> {
    let tracker = Tracker::start("started", json!({"metadata": titled(&json!(["Job", "Pod"]))})).await?;
    let world = &tracker.world;
    tracker.fails().await?;
    let (stored, _) = world.create(&task("fixer-42")).await?;
    world.create(&World::job_of(&stored)).await?;
    eventually("the Job has started", PATIENCE, || async {
        let job = tracker.get("job").await?;
        ensure!(!job["status"]["startTime"].is_null(), "{job}");
        Ok(())
    })
    .await?;
    tracker.heals().await?;
    let task = tracker.settled().await?;
    let job = tracker.get("job").await?;
    ensure!(
        !labels(&task)["title"].is_null() && labels(&job)["title"] == labels(&task)["title"],
        "{job}"
    );
    ensure!(labels(&job["spec"]["template"])["title"].is_null(), "{job}");
    Ok(())
}

#[tokio::test]
async fn what_the_tracker_does_not_know_either_is_left_out_and_told() -> anyhow::Result<()> {
    let mut section = example();
    section["labels"]["kelos.dev/priority"] = json!("{{index .Labels 7}}");
    let tracker = Tracker::start("unknown", json!({"priority": 2, "metadata": section})).await?;
    let world = &tracker.world;
    // Of two policies the stronger has a key as long as it waits; the weaker helps out where it has no value.
    let weak = json!({"labels": {"author": "{{ item.author }}", "kelos.dev/priority": "none"},
        "annotations": {"kelos.dev/source-title": "weak"}, "fromSource": true});
    world.policy("weak", json!({"priority": 1, "metadata": weak})).await?;
    let mut mine = section.clone();
    mine["labels"] = json!({"nobody": "{{index .Labels 7}}"});
    mine["annotations"] = json!({});
    world.policy("third", json!({"metadata": mine})).await?;
    let (stored, _) = world.create(&task("fixer-42")).await?;
    ensure!(labels(&stored)["kelos.dev/priority"].is_null(), "{stored}");
    let task = tracker.settled().await?;
    ensure!(
        labels(&task)["kelos.dev/priority"] == "none" && labels(&task)["author"] == "octocat",
        "{task}"
    );
    ensure!(
        annotations(&task)["kelos.dev/source-title"] == "Fix the login page",
        "{task}"
    );
    ensure!(labels(&task)["nobody"].is_null(), "{task}");
    let note = annotations(&task)["taskgate.dev/metadata-skipped"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    ensure!(note.contains("nobody: line 1, column"), "{note}");
    eventually("there is an Event", PATIENCE, || async {
        let events = world.ns.api::<Event>().list(&ListParams::default()).await?.items;
        let skipped = events
            .iter()
            .filter(|event| event.reason.as_deref() == Some("MetadataSkipped"));
        let notes: Vec<_> = skipped.filter_map(|event| event.note.clone()).collect();
        ensure!(notes.len() == 1 && notes[0].contains(&note), "{notes:?}");
        Ok(())
    })
    .await?;
    let counted = world.gate.metrics().await?;
    let counted = counted.value("taskgate_metadata_completed_total", &[("result", "skipped")]);
    ensure!(counted.is_some_and(|count| count >= 1.0), "{counted:?}");
    Ok(())
}

#[tokio::test]
async fn a_hostile_title_is_data() -> anyhow::Result<()> {
    let title = "\"; kubectl delete ns {{.Number}} {% for x in y %}\n\u{202e}$(reboot)\u{200b} 😀";
    let section = json!({"engine": "GoTemplate", "labels": {"title": "{{.Title}}", "first": "{{index .Labels 0}}"},
        "annotations": {"copy": "{{.Title}}", "who": "{{.Author}}"}, "fromSource": true});
    let tracker = Tracker::start("hostile", json!({"metadata": section})).await?;
    tracker.issue.title(title).author("-x-");
    tracker.issue.labels(["../../etc/passwd", "x"]);
    tracker.world.create(&task("fixer-42")).await?;
    let task = tracker.settled().await?;
    // The source reader keeps no control characters.
    let read = title.replace(['\n', '\u{202e}'], " ");
    ensure!(
        annotations(&task)["copy"] == read && annotations(&task)["who"] == "-x-",
        "{task}"
    );
    for key in ["title", "first"] {
        let label = labels(&task)[key].as_str().unwrap_or_default();
        let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        ensure!(
            !label.is_empty() && label.len() <= 63 && label.chars().all(legal),
            "{label}"
        );
    }
    Ok(())
}

/// On a control plane of its own, because taskgate is killed there.
#[tokio::test]
async fn who_waits_when_taskgate_dies_gets_its_labels_from_the_next() -> anyhow::Result<()> {
    let cp = OWN.get().await?;
    let gate = OWN_GATE.get_or_try_init(|| gate(cp)).await?;
    let world = World::on(cp, gate, "restart").await?;
    let tracker = Tracker::of(world, json!({"metadata": titled(&json!([]))})).await?;
    tracker.fails().await?;
    tracker.world.create(&task("fixer-42")).await?;
    let mark = cp.audit().mark()?;
    eventually("the tracker is asked", PATIENCE, || async {
        ensure!(!tracker.asked().await?.is_empty());
        Ok(())
    })
    .await?;
    gate.process().kill().await?;
    tracker.heals().await?;
    gate.process().start().await?;
    let task = tracker.settled().await?;
    ensure!(!labels(&task)["title"].is_null(), "{task}");
    gate.process().restart().await?;
    tracker.writes_at_most(1, mark, Duration::from_secs(4)).await?;
    let written = tracker.written(mark).await?;
    let is_one = written.len() == 1 && written[0].starts_with("patch kelos.dev/tasks ");
    ensure!(is_one, "{written:?}");
    Ok(())
}
