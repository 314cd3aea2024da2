//! `taskgate check`: evaluates objects as admission would, without a cluster, or with the policies and WorkItems of one.

mod formats;
mod report;
mod text;

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::UserInfo;
use serde_json::Value;
use taskgate_offline::{
    ClusterState, ClusterStateOptions, Document, Documents, Evaluator, InstalledWebhooks, RequestDefaults, Schemas,
    SourceLocation, UnreadableDocument, WriteRequest, cluster_state, webhooks::WebhookConfigurationError,
};

use self::report::{CheckReport, EvaluatedObject};
use crate::{
    cluster::Connection,
    defaults::{NAME, NAMESPACE},
    exit::{ExitStatus, UsageError},
    flags::{ConnectionArgs, WarningsArgs},
    output::{self, ProgressLine, Style},
};

const EXAMPLES: &str = "\
Examples:
  taskgate check policy.yaml task.yaml                 # both are evaluated, and the policy governs the Task
  taskgate check deploy/ --with cluster.yaml           # against the output of `kubectl get -o yaml`
  taskgate check task.yaml --live --context prod       # against the policies and WorkItems of a cluster
  taskgate check --live -n team-a                      # would the stored objects pass today?
  kubectl get tasks.kelos.dev -o yaml | taskgate check - --with policy.yaml
  taskgate check deploy/ -o sarif > taskgate.sarif

Exit codes: 0 all pass, 1 something is refused or cannot be read, 2 usage, 3 (--warnings-exit-code) warnings only.";

/// Flags of `taskgate check`.
#[derive(Args, Debug)]
#[command(
    after_help = EXAMPLES,
    mut_arg("as_user", |arg| arg.help("The user who creates the objects. The cluster is read as yourself")),
    mut_arg("as_groups", |arg| arg.help("A group of that user; may be given several times")),
)]
#[allow(clippy::struct_excessive_bools, reason = "flags that do not depend on each other")]
pub(crate) struct CheckArgs {
    /// Files, folders, or - for standard input: YAML with any number of documents, JSON, Lists, AdmissionReviews. Tasks,
    /// Jobs, policies and WorkItems in them are evaluated as if they were created now; policies and all other objects are
    /// also taken for the state of the cluster.
    #[arg(value_name = "FILES")]
    pub(crate) files: Vec<PathBuf>,
    /// The same as FILES, as with kubectl.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) filename: Vec<PathBuf>,
    /// Files or folders with further objects of the cluster: policies, WorkItems, Namespaces, TaskSpawners, Workspaces, Tasks,
    /// CRDs, webhook configurations. They are not evaluated.
    #[arg(long, value_name = "FILES")]
    pub(crate) with: Vec<PathBuf>,
    /// Read the state of the cluster. Without FILES, the objects of the namespace are evaluated.
    #[arg(long)]
    pub(crate) live: bool,
    /// With --live and without FILES: evaluate the objects of every namespace.
    #[arg(short = 'A', long, requires = "live", conflicts_with_all = ["files", "filename"])]
    pub(crate) all_namespaces: bool,
    /// Objects that are in no file do not exist: a Workspace, a LocalQueue, Kueue. Implied by --live.
    #[arg(long)]
    pub(crate) complete: bool,
    /// The time of the creation, such as 2026-11-20T12:00:00Z. Absent: now.
    #[arg(long, value_name = "TIME")]
    pub(crate) now: Option<Timestamp>,
    /// The namespace that taskgate runs in, unless the webhook configurations are among the files.
    #[arg(long, value_name = "NAME", default_value = NAMESPACE)]
    pub(crate) taskgate_namespace: String,
    /// The form of the result.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Form,
    /// Annotate a pull request: lines on standard error for the CI system.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) ci: Ci,
    /// Print only what is refused or has warnings.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) warnings: WarningsArgs,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// The forms of the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people.
    #[default]
    Text,
    /// For programs: all data.
    Json,
    /// The same.
    Yaml,
    /// For CI systems that show tests.
    Junit,
    /// For code scanning.
    Sarif,
}

/// The CI system whose annotations are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ci {
    /// The one that this runs in, where it is known.
    #[default]
    Auto,
    /// GitHub Actions.
    Github,
    /// None.
    None,
}

/// RBAC with `--live`: `list` on the objects that verdicts depend on, and `create` on subjectaccessreviews. Nothing without.
pub(crate) async fn run(mut args: CheckArgs) -> Result<ExitStatus> {
    args.files.append(&mut args.filename);
    if args.files.is_empty() && !args.live {
        let usage = "name FILES to check, - for standard input, or --live for what is in the cluster";
        bail!(UsageError(usage.to_owned()));
    }
    let reading = ProgressLine::new("reading files");
    let asked = Documents::read(&args.files, &|done, total| reading.at(done, total));
    let given = Documents::read(&args.with, &|done, total| reading.at(done, total));
    drop(reading);
    let mut report = CheckReport::default();
    let (connection, live, namespace) = if args.live {
        let connection = args.connection.without_impersonation().connect().await?;
        let loaded = cluster_state::load(&connection.client, &connection.namespace).await;
        let (live, notes) = loaded.context("reading the cluster")?;
        report.notes = notes.iter().map(ToString::to_string).collect();
        let namespace = connection.namespace.clone();
        (Some(connection), live, namespace)
    } else {
        let namespace = args.connection.namespace.clone();
        (None, Vec::new(), namespace.unwrap_or_else(|| "default".to_owned()))
    };
    let of_files = [&given.objects, &asked.objects].into_iter().flatten();
    // Of two objects with the same name the later one counts: files replace the state of the cluster.
    let objects: Vec<_> = live.iter().chain(of_files.map(|document| &document.object)).collect();
    report.unreadable = [given.unreadable, asked.unreadable].concat();
    report.duplicates = [given.duplicates, asked.duplicates].concat();
    let webhooks = InstalledWebhooks::find(objects.iter().copied()).unwrap_or_else(|error| {
        let mut documents = given.objects.iter().chain(&asked.objects);
        report.unreadable.push(unusable(
            &error,
            documents.rfind(|document| error.is_about(&document.object)),
        ));
        None
    });
    let webhooks = webhooks.unwrap_or_else(|| InstalledWebhooks::generated(NAME, &args.taskgate_namespace));
    let evaluator = Arc::new(evaluator(&args, connection.as_ref(), &namespace, &objects, webhooks));
    let proposed = if args.files.is_empty() {
        stored(live, if args.all_namespaces { None } else { Some(&namespace) })
    } else {
        asked.objects
    };
    evaluate(&evaluator, proposed, defaults(&args, namespace), &mut report).await;
    report.leave_out(evaluator.cluster.rejected_policies());
    print(&args, &report)?;
    Ok(report.status())
}

/// A webhook configuration that cannot be evaluated, in the document that it is from; `None` for one in the cluster.
fn unusable(error: &WebhookConfigurationError, document: Option<&Document>) -> UnreadableDocument {
    UnreadableDocument {
        file: document.map_or_else(|| "cluster".to_owned(), |document| document.location.file.clone()),
        line: document.map(|document| document.location.line),
        column: None,
        message: error.to_string(),
    }
}

/// The objects of a cluster that admission evaluates, as documents.
fn stored(live: Vec<Value>, namespace: Option<&str>) -> Vec<Document> {
    let here = |object: &Value| match (object["metadata"]["namespace"].as_str(), namespace) {
        (Some(of), Some(namespace)) => of == namespace,
        _ => true,
    };
    let kinds = ["Task", "TaskPolicy", "ClusterTaskPolicy"];
    let is_evaluated = |object: &Value| object["kind"].as_str().is_some_and(|kind| kinds.contains(&kind));
    let place = SourceLocation {
        file: "cluster".to_owned(),
        line: 1,
    };
    let objects = live.into_iter().filter(|object| is_evaluated(object) && here(object));
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
    let cluster = &args.connection.cluster;
    if let Some(username) = &cluster.as_user {
        defaults.user = UserInfo {
            username: Some(username.clone()),
            groups: Some(cluster.as_groups.clone()),
            ..UserInfo::default()
        };
    }
    defaults
}

/// The evaluator, with everything that verdicts depend on.
fn evaluator(
    args: &CheckArgs,
    connection: Option<&Connection>,
    namespace: &str,
    objects: &[&Value],
    webhooks: InstalledWebhooks,
) -> Evaluator {
    let mut schemas = Schemas::own();
    let is_crd = |object: &&&Value| object["kind"] == "CustomResourceDefinition";
    objects.iter().filter(is_crd).for_each(|crd| schemas.add(crd));
    let knowledge = ClusterStateOptions {
        complete: args.complete || args.live,
        permissions: connection.map(|connection| connection.client.clone()),
        own_user: Some(format!("system:serviceaccount:{}:{NAME}", args.taskgate_namespace)),
    };
    Evaluator {
        cluster: ClusterState::of(objects.iter().copied(), namespace, knowledge),
        webhooks: Arc::new(webhooks),
        schemas: Arc::new(schemas),
        now: args.now.unwrap_or_else(Timestamp::now),
    }
}

/// Evaluates `documents` on all processors and reports them in their order. A panic about one hides no other result.
async fn evaluate(
    evaluator: &Arc<Evaluator>,
    documents: Vec<Document>,
    defaults: RequestDefaults,
    report: &mut CheckReport,
) {
    let progress = ProgressLine::new("evaluating objects");
    let (total, defaults) = (documents.len(), Arc::new(defaults));
    let evaluations = documents.into_iter().map(|Document { location, object }| {
        let (evaluator, defaults) = (Arc::clone(evaluator), Arc::clone(&defaults));
        let evaluation = tokio::spawn(async move {
            match WriteRequest::of(object, &defaults) {
                Ok(request) => Ok(evaluator.evaluate(request).await),
                Err(error) => Err(error.to_string()),
            }
        });
        (location, evaluation)
    });
    for (index, (place, evaluation)) in evaluations.collect::<Vec<_>>().into_iter().enumerate() {
        match evaluation.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(Some(judgement)) => report.entries.push(EvaluatedObject { place, judgement }),
            Ok(None) => report.other_kinds += 1,
            Err(message) => report.unreadable.push(UnreadableDocument {
                file: place.file,
                line: Some(place.line),
                column: None,
                message,
            }),
        }
        progress.at(index + 1, total);
    }
}

fn print(args: &CheckArgs, report: &CheckReport) -> Result<()> {
    let github = match args.ci {
        Ci::Auto => std::env::var("GITHUB_ACTIONS").is_ok_and(|value| value == "true"),
        Ci::Github => true,
        Ci::None => false,
    };
    if github {
        output::print_stderr(&formats::github(report));
    }
    let text = match args.output {
        Form::Text => text::render(report, Style::of_stdout(), args.quiet),
        Form::Json => output::to_json(&report.as_data())?,
        Form::Yaml => output::to_yaml(&report.as_data())?,
        Form::Junit => formats::junit(report),
        Form::Sarif => output::to_json(&formats::sarif(report))?,
    };
    output::print(&text)
}
