//! Values that only the issue source has (`fromSource`): creation warns, and they are added once the source has answered, to
//! Task, Job and the pods of a Job that has not started.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use kelos_standin::{CRDS, CycleResult, Fault, GitHub, Issue, Key, Options, Scope, Seen, Standin, client};
use serde_json::{Value, json};
use taskgate_e2e::{
    ControlPlane, Fixture, KELOS, Marker, PATIENCE, SharedGate, TASKGATE_AGENT, eventually, github, job_of, never,
    taskgate_requests,
};

use crate::recipes::recipe;
use crate::support::{annotations, apply_policy, created_with_warnings, labels, selected, start, start_on, task};

/// For the test that kills taskgate.
static KILLED: SharedGate = SharedGate::new(|| ControlPlane::builder().crds(CRDS));

pub(crate) const PENDING: &str = "taskgate.dev/metadata-pending";
/// What `priority/critical` becomes as a label.
const CRITICAL: &str = "priority-critical-a2ab1192";

/// The proposal's example of `taskTemplate.metadata`, word for word, with the issue source allowed.
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

/// A fixture whose Workspace is a repository of the shared GitHub, with issue 42.
pub(crate) struct IssueSource {
    pub(crate) fixture: Fixture<'static>,
    github: &'static GitHub,
    issue: Issue,
}

impl IssueSource {
    async fn start(hint: &str, spec: Value) -> anyhow::Result<Self> {
        Self::of(start(hint).await?, spec).await
    }

    pub(crate) async fn of(fixture: Fixture<'static>, spec: Value) -> anyhow::Result<Self> {
        let github = github().await?;
        let repo = github.repo(fixture.name(), "r");
        let workspace = json!({"apiVersion": KELOS, "kind": "Workspace", "metadata": {"name": "shop"},
            "spec": {"repo": repo.clone_url()}});
        fixture.apply_yaml(&workspace.to_string()).await?;
        let when = json!({"spec": {"when": {"githubIssues": {"pollInterval": "1s"}}}}).to_string();
        let patch = ["patch", "taskspawner", "fixer", "--type=merge", "-p", &when];
        fixture.kubectl(patch).await?.stdout_ok()?;
        let issue = repo.issue(42);
        issue.title("Fix the login page").author("octocat");
        issue.labels(["priority/critical", "bug"]);
        apply_policy(&fixture, "agents", spec).await?;
        Ok(Self { fixture, github, issue })
    }

    fn path(&self) -> String {
        format!("/repos/{}/r", self.fixture.ns)
    }

    /// From now on GitHub fails taskgate, and no other client.
    pub(crate) fn fails(&self) {
        let fault = Fault::status(500).of(TASKGATE_AGENT).on(&self.path());
        self.github.fault(fault);
    }

    pub(crate) fn heals(&self) {
        self.github.heal_on(&self.path());
    }

    /// What taskgate requested.
    fn requests(&self) -> Vec<Seen> {
        taskgate_requests(self.github, self.fixture.name())
    }

    pub(crate) async fn get(&self, kind: &str) -> anyhow::Result<Value> {
        self.fixture.stored(kind, "fixer-42").await?.context("there is none")
    }

    async fn task(&self) -> anyhow::Result<Value> {
        self.get("tasks.kelos.dev").await
    }

    /// The Task, once none of its labels is pending.
    pub(crate) async fn settled(&self) -> anyhow::Result<Value> {
        eventually("the Task waits for nothing", 2 * PATIENCE, || async {
            let task = self.task().await?;
            ensure!(annotations(&task)[PENDING].is_null(), "{task}");
            Ok(task)
        })
        .await
    }

    /// taskgate's writes of Tasks and Jobs.
    async fn written(&self, mark: Marker) -> anyhow::Result<Vec<String>> {
        let events = self.fixture.cp.audit().since(mark).await?.into_iter();
        let ours = events.filter(|event| {
            let object = &event.object_ref;
            let is_subject = matches!(object.resource.as_str(), "tasks" | "jobs");
            let is_here = object.namespace == self.fixture.ns.name();
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
    let source = IssueSource::start("verbatim", json!({"queueName": "agents", "metadata": section})).await?;
    let fixture = &source.fixture;
    source.fails();
    let scope = Scope::Namespaces(vec![fixture.ns.name().to_owned()]);
    let kelos = Standin::start(client(fixture.cp.config())?, Options::new(scope, source.github.url())).await?;
    let go = [
        "patch",
        "taskspawner",
        "fixer",
        "--type=merge",
        "-p",
        r#"{"spec":{"suspend":false}}"#,
    ];
    fixture.kubectl(go).await?.stdout_ok()?;
    let job = eventually("Kelos makes the Job, and it is in the queue", PATIENCE, || async {
        let job = source.get("job").await?;
        ensure!(job["spec"]["suspend"] == true, "{job}");
        Ok(job)
    })
    .await?;
    ensure!(labels(&job)["team.example.com/area"] == "backend", "{job}");
    let url = format!("https://github.com/{}/r/issues/42", fixture.ns.name());
    ensure!(annotations(&job)["kelos.dev/source-url"] == url, "{job}");
    ensure!(labels(&job)["kelos.dev/priority"].is_null(), "{job}");
    source.heals();
    let task = source.settled().await?;
    let job = source.get("job").await?;
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
    let found = selected(fixture, &format!("kelos.dev/priority={CRITICAL}")).await?;
    ensure!(found == "task.kelos.dev/fixer-42", "{found}");
    ensure!(
        job["spec"]["suspend"] == true && labels(&job)["kueue.x-k8s.io/queue-name"] == "agents",
        "{job}"
    );
    ensure!(kelos.cycles(&Key::new(fixture.ns.name(), "fixer"), CycleResult::Failure) == 0);
    Ok(())
}

#[tokio::test]
async fn the_example_of_the_docs_is_filled_in() -> anyhow::Result<()> {
    let section = recipe("Values from the issue source")?;
    let source = IssueSource::start("docs", json!({"metadata": section})).await?;
    source.fixture.created(&task("fixer-42")).await?;
    eventually("the Task has the values of the issue source", PATIENCE, || async {
        let task = source.task().await?;
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
async fn an_issue_source_that_is_down_blocks_nothing_and_is_reported_once() -> anyhow::Result<()> {
    let source = IssueSource::start("down", json!({"metadata": example()})).await?;
    let fixture = &source.fixture;
    source.fails();
    let (stored, warnings) = created_with_warnings(fixture, &task("fixer-42")).await?;
    let told = "taskgate: TaskPolicy/agents: sets kelos.dev/priority, kelos.dev/source-title once the issue source \
                has been read";
    ensure!(warnings == [told], "{warnings:?}");
    ensure!(labels(&stored)["team.example.com/area"] == "backend", "{stored}");
    let waits = "label:kelos.dev/priority annotation:kelos.dev/source-title";
    ensure!(annotations(&stored)[PENDING] == waits, "{stored}");
    ensure!(
        annotations(&stored)["taskgate.dev/metadata-skipped"].is_null(),
        "{stored}"
    );
    let policies = fixture.policies();
    eventually(
        "the policy's condition says that its source cannot be read",
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
    let mark = fixture.cp.audit().mark()?;
    // A Task that ends before the source answers gets its labels all the same: its cost is attributed by them.
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
    fixture.kubectl(end).await?.stdout_ok()?;
    source.writes_at_most(0, mark, Duration::from_secs(4)).await?;
    source.heals();
    let task = source.settled().await?;
    ensure!(labels(&task)["kelos.dev/priority"] == CRITICAL, "{task}");
    ensure!(task["status"]["phase"] == "Succeeded", "{task}");
    Ok(())
}

#[tokio::test]
async fn without_the_opt_in_the_issue_source_is_not_asked() -> anyhow::Result<()> {
    let mut section = example();
    section["fromSource"] = json!(false);
    let source = IssueSource::start("closed", json!({"metadata": section})).await?;
    let (stored, warnings) = created_with_warnings(&source.fixture, &task("fixer-42")).await?;
    ensure!(
        warnings.len() == 2 && warnings.iter().all(|warning| warning.contains("left out")),
        "{warnings:?}"
    );
    ensure!(annotations(&stored)[PENDING].is_null(), "{stored}");
    never("taskgate asks", Duration::from_secs(4), || async {
        Ok(source.requests().pop())
    })
    .await
}

#[tokio::test]
async fn it_is_filled_in_once_and_a_job_that_comes_later_has_it_from_the_start() -> anyhow::Result<()> {
    let source = IssueSource::start("once", json!({"metadata": titled(&json!(["Job", "Pod"]))})).await?;
    let fixture = &source.fixture;
    let mark = fixture.cp.audit().mark()?;
    fixture.created(&task("fixer-42")).await?;
    let task = eventually("the Task has its title", PATIENCE, || async {
        let task = source.task().await?;
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
    // The Task does not wait any more: changes of the issue change nothing.
    source.issue.title("Another title");
    let asked = source.requests().len();
    never("taskgate asks again", Duration::from_secs(4), || async {
        Ok((source.requests().len() > asked + 1).then_some("asked"))
    })
    .await?;
    let job = fixture.created(&job_of(&task)).await?;
    ensure!(
        labels(&job)["title"] == title && labels(&job["spec"]["template"])["title"] == title,
        "{job}"
    );
    // Kelos names the Job in the Task's status.
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
    fixture.kubectl(told).await?.stdout_ok()?;
    let task = source.settled().await?;
    ensure!(labels(&task)["title"] == title, "{task}");
    source.writes_at_most(2, mark, Duration::from_secs(2)).await?;
    let written = source.written(mark).await?;
    let of = |path: &str| written.iter().filter(|write| write.starts_with(path)).count();
    let (tasks, jobs) = (of("patch kelos.dev/tasks "), of("patch batch/jobs "));
    ensure!((tasks, jobs, written.len()) == (2, 0, 2), "{written:?}");
    Ok(())
}

#[tokio::test]
async fn the_pods_of_a_job_that_has_started_stay_as_they_are() -> anyhow::Result<()> {
    let source = IssueSource::start("started", json!({"metadata": titled(&json!(["Job", "Pod"]))})).await?;
    let fixture = &source.fixture;
    source.fails();
    let stored = fixture.created(&task("fixer-42")).await?;
    fixture.created(&job_of(&stored)).await?;
    eventually("the Job has started", PATIENCE, || async {
        let job = source.get("job").await?;
        ensure!(!job["status"]["startTime"].is_null(), "{job}");
        Ok(())
    })
    .await?;
    source.heals();
    let task = source.settled().await?;
    let job = source.get("job").await?;
    ensure!(
        !labels(&task)["title"].is_null() && labels(&job)["title"] == labels(&task)["title"],
        "{job}"
    );
    ensure!(labels(&job["spec"]["template"])["title"].is_null(), "{job}");
    Ok(())
}

#[tokio::test]
async fn a_value_that_the_issue_source_does_not_have_is_left_out_with_an_event() -> anyhow::Result<()> {
    let mut section = example();
    section["labels"]["kelos.dev/priority"] = json!("{{index .Labels 7}}");
    let source = IssueSource::start("unknown", json!({"priority": 2, "metadata": section})).await?;
    let fixture = &source.fixture;
    // Of two policies the stronger owns a key while it waits; the weaker sets it where the stronger has no value.
    let weak = json!({"labels": {"author": "{{ item.author }}", "kelos.dev/priority": "none"},
        "annotations": {"kelos.dev/source-title": "weak"}, "fromSource": true});
    apply_policy(fixture, "weak", json!({"priority": 1, "metadata": weak})).await?;
    let mut mine = section.clone();
    mine["labels"] = json!({"absent": "{{index .Labels 7}}"});
    mine["annotations"] = json!({});
    apply_policy(fixture, "third", json!({"metadata": mine})).await?;
    let stored = fixture.created(&task("fixer-42")).await?;
    ensure!(labels(&stored)["kelos.dev/priority"].is_null(), "{stored}");
    let task = source.settled().await?;
    ensure!(
        labels(&task)["kelos.dev/priority"] == "none" && labels(&task)["author"] == "octocat",
        "{task}"
    );
    ensure!(
        annotations(&task)["kelos.dev/source-title"] == "Fix the login page",
        "{task}"
    );
    ensure!(labels(&task)["absent"].is_null(), "{task}");
    let note = annotations(&task)["taskgate.dev/metadata-skipped"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    ensure!(note.contains("absent: line 1, column"), "{note}");
    eventually("there is an Event", PATIENCE, || async {
        let events = fixture.events_with_reason("fixer-42", "MetadataSkipped").await?;
        let notes: Vec<_> = events.into_iter().filter_map(|event| event.note).collect();
        ensure!(notes.len() == 1 && notes[0].contains(&note), "{notes:?}");
        Ok(())
    })
    .await?;
    let counted = fixture.gate.metrics().await?;
    let counted = counted.value("taskgate_metadata_completed_total", &[("result", "skipped")]);
    ensure!(counted.is_some_and(|count| count >= 1.0), "{counted:?}");
    Ok(())
}

#[tokio::test]
async fn a_hostile_title_is_data() -> anyhow::Result<()> {
    let title = "\"; kubectl delete ns {{.Number}} {% for x in y %}\n\u{202e}$(reboot)\u{200b} 😀";
    let section = json!({"engine": "GoTemplate", "labels": {"title": "{{.Title}}", "first": "{{index .Labels 0}}"},
        "annotations": {"copy": "{{.Title}}", "who": "{{.Author}}"}, "fromSource": true});
    let source = IssueSource::start("hostile", json!({"metadata": section})).await?;
    source.issue.title(title).author("-x-");
    source.issue.labels(["../../etc/passwd", "x"]);
    source.fixture.created(&task("fixer-42")).await?;
    let task = source.settled().await?;
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

/// On a control plane of its own, because taskgate is killed.
#[tokio::test]
async fn a_task_that_waits_when_taskgate_is_killed_gets_its_labels_after_the_restart() -> anyhow::Result<()> {
    let fixture = start_on(&KILLED, "restart").await?;
    let (cp, gate) = (fixture.cp, fixture.gate);
    let source = IssueSource::of(fixture, json!({"metadata": titled(&json!([]))})).await?;
    source.fails();
    source.fixture.created(&task("fixer-42")).await?;
    let mark = cp.audit().mark()?;
    eventually("the issue source is asked", PATIENCE, || async {
        ensure!(!source.requests().is_empty());
        Ok(())
    })
    .await?;
    gate.process().kill().await?;
    source.heals();
    gate.process().start().await?;
    let task = source.settled().await?;
    ensure!(!labels(&task)["title"].is_null(), "{task}");
    gate.process().restart().await?;
    source.writes_at_most(1, mark, Duration::from_secs(4)).await?;
    let written = source.written(mark).await?;
    let is_one = written.len() == 1 && written[0].starts_with("patch kelos.dev/tasks ");
    ensure!(is_one, "{written:?}");
    Ok(())
}
