//! `taskgate convert`: the policy fields of a TaskSpawner as a TaskPolicy, for clusters that do not extend Kelos' CRDs, and a
//! TaskPolicy as the fields of the TaskSpawners that it names.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Map, Value, json};
use taskgate_api::{
    GROUP, Mode, kelos,
    kelos_fields::{KelosField, SpawnerFields},
    metadata::Metadata,
    task_policy::TemplateEngine,
};
use taskgate_offline::{Document, Documents};
use taskgate_policy::{Policy, Problem, is_template};

use crate::{
    exit::{ExitStatus, UsageError},
    output,
};

/// The priority of a TaskPolicy that stands for a spawner's own fields.
const PRIORITY: i32 = 1000;
/// The fields of a TaskPolicy's spec that a TaskSpawner has no field for, besides its selector and its modes.
const NOT_ON_SPAWNERS: [&str; 5] = [
    "metadata",
    "retry",
    "queuePriorityClass",
    "queueOnError",
    "queueOnDeactivation",
];

/// Flags of `taskgate convert`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  taskgate convert -f spawner.yaml                   the TaskPolicy with the same effect
  taskgate convert -f policy.yaml                    the fields for each TaskSpawner that the policy names
  taskgate convert -f policy.yaml --spawner fixer    the fields for this TaskSpawner

Comments in the output name what cannot be expressed.")]
pub(crate) struct ConvertArgs {
    /// Files, folders, or - for standard input, with TaskSpawners and TaskPolicies.
    #[arg(short = 'f', long = "filename", value_name = "FILES", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// A TaskSpawner that gets the fields of a TaskPolicy, in place of those that the policy names.
    #[arg(long = "spawner", value_name = "NAME")]
    pub(crate) spawners: Vec<String>,
}

/// RBAC: nothing. It reads files only.
pub(crate) fn run(args: &ConvertArgs) -> Result<ExitStatus> {
    let documents = Documents::read(&args.files, &|_, _| {});
    let mut failed = 0;
    let mut fail = |place: &str, message: &str| {
        output::print_error(&format!("{place}: {message}"));
        failed += 1;
    };
    for bad in &documents.unreadable {
        fail(&bad.location(), &bad.message);
    }
    let mut converted = Vec::new();
    for Document { location, object } in &documents.objects {
        match convert(object, &args.spawners) {
            Some(Ok(texts)) => converted.extend(texts),
            Some(Err(message)) => fail(&format!("{}:{}", location.file, location.line), &message),
            None => {}
        }
    }
    if converted.is_empty() && failed == 0 {
        let message = "the files have no TaskSpawner with policy fields and no TaskPolicy".to_owned();
        bail!(UsageError(message));
    }
    output::print(&converted.join("---\n"))?;
    Ok(if failed == 0 {
        ExitStatus::Success
    } else {
        ExitStatus::Failure
    })
}

/// The documents that `object` converts to; `None` if it is of another kind, or a TaskSpawner without the fields.
fn convert(object: &Value, spawners: &[String]) -> Option<Result<Vec<String>, String>> {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let group = text("apiVersion").split_once('/').map_or("", |(group, _)| group);
    match (group, text("kind")) {
        (kelos::GROUP, "TaskSpawner") => of_spawner(object).map(|text| text.map(|text| vec![text])),
        (GROUP, "TaskPolicy") => Some(of_policy(object, spawners)),
        (GROUP, "ClusterTaskPolicy") => {
            let message = "a ClusterTaskPolicy governs many namespaces: a TaskSpawner has no fields for that";
            Some(Err(message.to_owned()))
        }
        _ => None,
    }
}

/// The TaskPolicy for the Tasks of `spawner`.
fn of_spawner(spawner: &Value) -> Option<Result<String, String>> {
    let metadata = Metadata::of(spawner);
    let namespace = metadata.namespace().unwrap_or("default");
    let name = metadata.name().unwrap_or("spawner");
    let fields = SpawnerFields::read(spawner, &KelosField::all());
    if let Err(problems) = Policy::of_spawner(namespace, name, &fields)? {
        return Some(Err(in_words(&problems)));
    }
    let mut spec = Map::from_iter([
        ("selector".to_owned(), json!({"spawnerNames": [name]})),
        ("priority".to_owned(), PRIORITY.into()),
    ]);
    for field in SpawnerFields::FIELDS {
        let value = field.of(spawner).filter(|value| **value != "").cloned();
        spec.extend(value.map(|value| (<&str>::from(field).to_owned(), value)));
    }
    let comments = [
        format!("The policy fields of TaskSpawner {namespace}/{name} as a TaskPolicy."),
        format!(
            "The fields of a TaskSpawner win over every policy that is not enforced. This policy wins over those with a priority below {PRIORITY}."
        ),
    ];
    Some(document(
        &comments,
        &json!({
            "apiVersion": "taskgate.dev/v1alpha1",
            "kind": "TaskPolicy",
            "metadata": of_metadata(metadata),
            "spec": spec,
        }),
    ))
}

/// The fields of `policy` for each of the `spawners`, or of those that it names.
fn of_policy(policy: &Value, spawners: &[String]) -> Result<Vec<String>, String> {
    let metadata = Metadata::of(policy);
    let namespace = metadata.namespace().unwrap_or("default");
    let name = metadata.name().unwrap_or("policy");
    let spec = serde_json::from_value(policy["spec"].clone()).map_err(|error| format!("spec: {error}"))?;
    if let Err(problems) = Policy::namespaced(namespace, name, &spec) {
        return Err(in_words(&problems));
    }
    let selected = if spawners.is_empty() {
        &spec.selector.spawner_names[..]
    } else {
        spawners
    };
    if selected.is_empty() {
        return Err("the policy names no TaskSpawner: name one with --spawner".to_owned());
    }
    let Expressed { fields, lost } = express(&policy["spec"], spec.mode, spec.queue_mode);
    if fields.is_empty() {
        let lost = lost.join(", ");
        return Err(format!("a TaskSpawner has no field for what the policy has: {lost}"));
    }
    let mut comments = vec![
        format!("TaskPolicy {namespace}/{name} as fields of a TaskSpawner: merge them into its manifest."),
        "The fields win over every policy that is not enforced; the policy's priority has no counterpart.".to_owned(),
    ];
    comments.extend(lost.iter().map(|lost| format!("Not expressed: {lost}.")));
    let of_spawner = |spawner: &String| {
        let metadata = of_metadata(metadata);
        document(
            &comments,
            &json!({
                "apiVersion": format!("{}/{}", kelos::GROUP, kelos::TASK_VERSIONS[0]),
                "kind": "TaskSpawner",
                "metadata": {"name": spawner, "namespace": metadata["namespace"]},
                "spec": fields,
            }),
        )
    };
    selected.iter().map(of_spawner).collect()
}

/// What of a policy a TaskSpawner can express.
struct Expressed {
    fields: Map<String, Value>,
    /// What it cannot.
    lost: Vec<String>,
}

fn express(spec: &Value, mode: Mode, queue_mode: Option<Mode>) -> Expressed {
    let mut expressed = Expressed {
        fields: Map::new(),
        lost: Vec::new(),
    };
    let Expressed { fields, lost } = &mut expressed;
    for section in ["failurePolicy", "cancellationPolicy"] {
        let Some(mut value) = spec.get(section).filter(|value| value.is_object()).cloned() else {
            continue;
        };
        if mode == Mode::Off {
            lost.push(format!("spec.{section}, as spec.mode is Off"));
            continue;
        }
        if mode != Mode::Enforce && value.get("mode").is_none() {
            value["mode"] = json!(mode);
        }
        fields.insert(section.to_owned(), value);
    }
    let is_go = spec.pointer("/metadata/engine") == Some(&json!(TemplateEngine::GoTemplate));
    let queue = spec.get("queueName").and_then(Value::as_str);
    if let Some(queue) = queue {
        match queue_mode.unwrap_or(mode) {
            Mode::Enforce if is_go && is_template(queue) => {
                lost.push("spec.queueName, a Go template: on a TaskSpawner it is a Tera template".to_owned());
            }
            Mode::Enforce => _ = fields.insert("taskTemplate".to_owned(), json!({"queueName": queue})),
            mode => lost.push(format!(
                "spec.queueName with mode {mode:?}: on a TaskSpawner it is enforced"
            )),
        }
    }
    for selector in ["spawnerSelector", "taskSelector", "taskTypes"] {
        if spec["selector"].get(selector).is_some() {
            lost.push(format!(
                "spec.selector.{selector}: the fields govern all Tasks of the TaskSpawner"
            ));
        }
    }
    let others = NOT_ON_SPAWNERS.iter().filter(|field| spec.get(**field).is_some());
    lost.extend(others.map(|field| format!("spec.{field}")));
    expressed
}

/// The name, and the namespace if there is one.
fn of_metadata(metadata: Metadata<'_>) -> Value {
    let mut kept = Map::new();
    for (field, value) in [("name", metadata.name()), ("namespace", metadata.namespace())] {
        kept.extend(value.map(|value| (field.to_owned(), value.into())));
    }
    kept.into()
}

/// A YAML document after `comments`.
fn document(comments: &[String], object: &Value) -> Result<String, String> {
    let mut text = String::new();
    for comment in comments {
        // Writing to a `String` does not fail.
        let _ = writeln!(text, "# {comment}");
    }
    let mut object = object.clone();
    if object["metadata"]["namespace"].is_null()
        && let Some(metadata) = object["metadata"].as_object_mut()
    {
        metadata.remove("namespace");
    }
    output::to_yaml(&object)
        .map(|yaml| text + &yaml)
        .map_err(|error| format!("{error:#}"))
}

fn in_words(problems: &[Problem]) -> String {
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    problems.join("; ")
}
