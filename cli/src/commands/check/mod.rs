//! `taskgate check`: what the cluster would do with objects, without asking it, or with its policies and memory.

mod annotate;
mod judging;
mod junit;
mod report;
mod sarif;
mod text;

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::Value;
use taskgate_offline::{
    ClusterState, ClusterStateOptions, Document, Documents, Evaluator, InstalledWebhooks, RequestDefaults, Schemas,
    SourceLocation, cluster_state,
};
use taskgate_webhook::UserInfo;

use super::{Connection, ConnectionArgs, Failure, Outcome};
use crate::{
    args::{NAME, NAMESPACE},
    output::{self, Progress, Style},
};
use report::Report;

const EXAMPLES: &str = "\
Examples:
  taskgate check policy.yaml task.yaml                 # both are judged, and the policy governs the Task
  taskgate check deploy/ --with cluster.yaml           # against what `kubectl get -o yaml` wrote to cluster.yaml
  taskgate check task.yaml --live --context prod       # against the policies and the memory of a cluster
  taskgate check --live -n team-a                      # would what is there pass today?
  kubectl get tasks.kelos.dev -o yaml | taskgate check - --with policy.yaml
  taskgate check deploy/ -o sarif > taskgate.sarif

Exit codes: 0 all pass, 1 something is refused or cannot be read, 2 usage, 3 warnings only.";

/// Flags of `taskgate check`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
#[allow(clippy::struct_excessive_bools, reason = "flags that do not depend on each other")]
pub(crate) struct CheckArgs {
    /// Files, folders, or - for standard input: YAML with any number of documents, JSON, Lists, AdmissionReviews. Tasks,
    /// Jobs, policies and WorkItems in them are judged as if they were created now; policies and everything else also say
    /// what is in the cluster.
    #[arg(value_name = "FILES")]
    pub(crate) files: Vec<PathBuf>,
    /// Files or folders with what else is in the cluster: policies, WorkItems, Namespaces, TaskSpawners, Workspaces, Tasks,
    /// CRDs, webhook configurations. They are not judged.
    #[arg(long, value_name = "FILES")]
    pub(crate) with: Vec<PathBuf>,
    /// Take from the cluster what is in it. Without FILES, what is there in the namespace is judged.
    #[arg(long)]
    pub(crate) live: bool,
    /// With --live and without FILES: judge what is in every namespace.
    #[arg(short = 'A', long, requires = "live", conflicts_with = "files")]
    pub(crate) all_namespaces: bool,
    /// What no file shows is not there: a Workspace, a LocalQueue, Kueue. Implied by --live.
    #[arg(long)]
    pub(crate) complete: bool,
    /// Who creates the objects.
    #[arg(long = "as", value_name = "USER")]
    pub(crate) user: Option<String>,
    /// A group of who creates the objects.
    #[arg(long = "as-group", value_name = "GROUP", requires = "user")]
    pub(crate) groups: Vec<String>,
    /// When they are created, such as 2026-11-20T12:00:00Z. Absent: now.
    #[arg(long, value_name = "TIME")]
    pub(crate) now: Option<Timestamp>,
    /// The namespace that taskgate runs in, unless the webhook configurations are among the files.
    #[arg(long, value_name = "NAME", default_value = NAMESPACE)]
    pub(crate) taskgate_namespace: String,
    /// The form of the result.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Form,
    /// Annotate a pull request: lines on standard error that the CI system reads.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) ci: Ci,
    /// Tell only what is refused or warned of.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// The forms of the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people.
    #[default]
    Text,
    /// For programs: everything that is known.
    Json,
    /// The same.
    Yaml,
    /// For CI systems that show tests.
    Junit,
    /// For code scanning.
    Sarif,
}

/// Whose annotations are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ci {
    /// Those of the system that this runs in, as far as it is known.
    #[default]
    Auto,
    /// GitHub Actions.
    Github,
    /// None.
    None,
}

/// RBAC with `--live`: `list` on what verdicts rest on, and `create` on subjectaccessreviews. Nothing without.
pub(crate) async fn run(args: CheckArgs) -> Result<Outcome, Failure> {
    if args.files.is_empty() && !args.live {
        return Err(Failure::Usage(
            "name FILES to check, - for standard input, or --live for what is in the cluster".to_owned(),
        ));
    }
    let reading = Progress::new("reading files");
    let asked = Documents::read(&args.files, &|done, total| reading.at(done, total));
    let given = Documents::read(&args.with, &|done, total| reading.at(done, total));
    drop(reading);
    let connection = if args.live {
        Some(args.connection.connect().await?)
    } else {
        None
    };
    let mut report = Report::default();
    let live = match &connection {
        Some(connection) => load(connection, &mut report).await?,
        None => Vec::new(),
    };
    let namespace = match &connection {
        Some(connection) => connection.namespace.clone(),
        None => args
            .connection
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned()),
    };
    let of_files = [&given.objects, &asked.objects].into_iter().flatten();
    // What comes later counts: files say how the cluster is to be.
    let objects: Vec<_> = live.iter().chain(of_files.map(|document| &document.object)).collect();
    let judge = Arc::new(judge(&args, connection.as_ref(), &namespace, &objects)?);
    report.unreadable = [given.unreadable, asked.unreadable].concat();
    report.foreign = asked.skipped;
    let proposed = if args.files.is_empty() {
        stored(live, if args.all_namespaces { None } else { Some(&namespace) })
    } else {
        asked.objects
    };
    judging::judge_all(&judge, proposed, defaults(&args, namespace), &mut report).await?;
    report.leave_out(judge.cluster.rejected_policies());
    print(&args, &report)?;
    Ok(report.outcome())
}

/// What the cluster holds, and in the report what could not be read of it.
async fn load(connection: &Connection, report: &mut Report) -> anyhow::Result<Vec<Value>> {
    let loaded = cluster_state::load(&connection.client, &connection.namespace).await;
    let (objects, notes) = loaded.context("reading the cluster")?;
    report.notes = notes.iter().map(ToString::to_string).collect();
    Ok(objects)
}

/// The objects of a cluster that taskgate has a say in, as documents.
fn stored(live: Vec<Value>, namespace: Option<&str>) -> Vec<Document> {
    let here = |object: &Value| match (object["metadata"]["namespace"].as_str(), namespace) {
        (Some(of), Some(namespace)) => of == namespace,
        _ => true,
    };
    let judged = ["Task", "TaskPolicy", "ClusterTaskPolicy"];
    let judged = |object: &Value| object["kind"].as_str().is_some_and(|kind| judged.contains(&kind));
    let place = SourceLocation {
        file: "cluster".to_owned(),
        line: 1,
    };
    let objects = live.into_iter().filter(|object| judged(object) && here(object));
    let document = |object| Document {
        location: place.clone(),
        object,
    };
    objects.map(document).collect()
}

fn defaults(args: &CheckArgs, namespace: String) -> RequestDefaults {
    let mut defaults = RequestDefaults {
        namespace,
        ..RequestDefaults::default()
    };
    if let Some(username) = &args.user {
        defaults.user = UserInfo {
            username: username.clone(),
            groups: args.groups.clone(),
            ..UserInfo::default()
        };
    }
    defaults
}

/// Everything that verdicts rest on.
fn judge(
    args: &CheckArgs,
    connection: Option<&Connection>,
    namespace: &str,
    objects: &[&Value],
) -> anyhow::Result<Evaluator> {
    let mut schemas = Schemas::own();
    for crd in objects
        .iter()
        .filter(|object| object["kind"] == "CustomResourceDefinition")
    {
        schemas.add(crd);
    }
    let registration = InstalledWebhooks::find(objects.iter().copied()).map_err(|error| anyhow!("{error}"))?;
    let registration = registration.unwrap_or_else(|| InstalledWebhooks::generated(NAME, &args.taskgate_namespace));
    let knowledge = ClusterStateOptions {
        complete: args.complete || args.live,
        permissions: connection.map(|connection| connection.client.clone()),
        own_user: Some(format!("system:serviceaccount:{}:{NAME}", args.taskgate_namespace)),
    };
    Ok(Evaluator {
        cluster: ClusterState::of(objects.iter().copied(), namespace, knowledge),
        webhooks: Arc::new(registration),
        schemas: Arc::new(schemas),
        now: args.now.unwrap_or_else(Timestamp::now),
    })
}

fn print(args: &CheckArgs, report: &Report) -> anyhow::Result<()> {
    let github = match args.ci {
        Ci::Auto => std::env::var("GITHUB_ACTIONS").is_ok_and(|value| value == "true"),
        Ci::Github => true,
        Ci::None => false,
    };
    if github {
        output::tell(&annotate::github(report));
    }
    let text = match args.output {
        Form::Text => text::render(report, Style::of_stdout(), args.quiet),
        Form::Json => output::to_json(&report.as_data())?,
        Form::Yaml => output::to_yaml(&report.as_data())?,
        Form::Junit => junit::render(report),
        Form::Sarif => output::to_json(&sarif::render(report))?,
    };
    output::print(&text)
}
