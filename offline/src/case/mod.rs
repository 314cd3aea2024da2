//! Cases of `taskgate test`: files with a cluster state, write requests, their time, and the expected results.
//!
//! ```yaml
//! case: The fourth Task of an item is denied
//! now: 2026-11-20T12:00:00Z              # or several times: each is evaluated
//! given: [policy.yaml, spawner.yaml]     # objects, or files beside this one
//! history:                               # how earlier Tasks of the same item ended
//! - {failed: 2026-11-20T10:00:00Z, cost: "0.50"}
//! objects: [task.yaml]                   # objects, or files; AdmissionReviews for updates
//! expect:                                # one entry per time and object; `taskgate test --update` writes it
//! - verdict: denied
//!   message: "taskgate: item 42 failed …"
//! ```
//!
//! A case is complete: objects that it does not give do not exist. Nothing outside its files affects the result.
//!
//! Imports `documents`, `cluster_state`, `evaluator` and `diff`. Called by the binary.

mod expectation;
mod history;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::UserInfo;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    ClusterState, ClusterStateOptions, Documents, Evaluator, InstalledWebhooks, RequestDefaults, Schemas,
    UnreadableDocument, WriteRequest,
    diff::{FieldChange, changes},
    documents::{ReadValue, read_text, typed},
};
use expectation::{Expectation, update_file};
use history::{PastAttempt, record_history};

/// The content of a case file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CaseFile {
    /// The description, in one sentence.
    #[serde(default)]
    pub case: Option<String>,
    /// The time of the requests: one or several.
    now: Times,
    /// The requesting user.
    #[serde(default)]
    user: Option<String>,
    /// The groups of the user.
    #[serde(default)]
    groups: Vec<String>,
    /// The namespace of objects that name none.
    #[serde(default)]
    namespace: Option<String>,
    /// The objects in the cluster.
    #[serde(default)]
    given: Vec<ObjectSource>,
    /// How earlier Tasks of the item ended.
    #[serde(default)]
    history: Vec<PastAttempt>,
    /// The objects of the requests.
    objects: Vec<ObjectSource>,
    /// The expected results; absent until `--update` writes it.
    #[serde(default)]
    expect: Option<Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "ReadValue")]
struct Times(Vec<Timestamp>);

impl TryFrom<ReadValue> for Times {
    type Error = String;

    fn try_from(read: ReadValue) -> Result<Self, String> {
        let times = match read.value {
            Value::Array(times) => times,
            one => vec![one],
        };
        times.iter().map(time).collect::<Result<_, _>>().map(Self)
    }
}

/// The time in `value`, or what is wrong with it.
fn time(value: &Value) -> Result<Timestamp, String> {
    let time = value.as_str().and_then(|text| text.parse().ok());
    time.ok_or_else(|| format!("{value} is no time such as 2026-11-20T12:00:00Z"))
}

/// An object, or a file with objects.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "ReadValue")]
enum ObjectSource {
    File(PathBuf),
    Object(Value),
}

impl TryFrom<ReadValue> for ObjectSource {
    type Error = String;

    fn try_from(read: ReadValue) -> Result<Self, String> {
        match read.value {
            Value::String(file) => Ok(Self::File(file.into())),
            object @ Value::Object(_) => Ok(Self::Object(object)),
            other => Err(format!("{other} is neither an object nor the name of a file")),
        }
    }
}

/// A case cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a valid case.
    #[error("{location}: {message}")]
    Invalid {
        /// The file, with line and column if they are known.
        location: String,
        /// The error.
        message: String,
    },
}

impl CaseError {
    fn io(path: &Path, source: std::io::Error) -> Self {
        let path = path.to_owned();
        Self::Io { path, source }
    }

    fn invalid(location: &impl ToString, error: &impl ToString) -> Self {
        Self::Invalid {
            location: location.to_string(),
            message: error.to_string(),
        }
    }
}

/// The result of a case.
#[derive(Clone, Debug)]
pub struct CaseResult {
    /// The expected results; `None` if the case has none.
    pub expected: Option<Value>,
    /// The actual results.
    pub actual: Value,
    /// The actual results, in the order of the file.
    expectations: Vec<Expectation>,
}

impl CaseResult {
    /// Whether the actual results are the expected ones.
    pub fn passed(&self) -> bool {
        self.expected.as_ref() == Some(&self.actual)
    }

    /// The differences from the expected to the actual results.
    pub fn differences(&self) -> Vec<FieldChange> {
        changes(
            self.expected.as_ref().unwrap_or(&Value::Array(Vec::new())),
            &self.actual,
        )
    }
}

/// Runs cases, with shared webhooks and schemas.
#[derive(Debug)]
pub struct CaseRunner {
    webhooks: Arc<InstalledWebhooks>,
    schemas: Arc<Schemas>,
}

impl CaseRunner {
    /// A runner for an installation whose Service is called `service`, in `namespace`.
    pub fn new(service: &str, namespace: &str) -> Self {
        Self {
            webhooks: Arc::new(InstalledWebhooks::generated(service, namespace)),
            schemas: Arc::new(Schemas::own()),
        }
    }

    /// Runs the case of `path`.
    pub async fn run(&self, path: &Path) -> Result<CaseResult, CaseError> {
        let case = CaseFile::read(path)?;
        let directory = path.parent().unwrap_or(Path::new("."));
        let given = objects(path, directory, &case.given)?;
        let requested = objects(path, directory, &case.objects)?;
        let mut defaults = RequestDefaults::default();
        if let Some(username) = &case.user {
            defaults.user = UserInfo {
                username: Some(username.clone()),
                groups: Some(case.groups.clone()),
                ..UserInfo::default()
            };
        }
        if let Some(namespace) = &case.namespace {
            defaults.namespace.clone_from(namespace);
        }
        let webhooks = InstalledWebhooks::find(&given).map_err(|error| CaseError::invalid(&path.display(), &error))?;
        let mut evaluator = Evaluator {
            cluster: ClusterState::default(),
            webhooks: webhooks.map_or_else(|| self.webhooks.clone(), Arc::new),
            schemas: self.schemas_with(&given),
            now: Timestamp::UNIX_EPOCH,
        };
        let Times(times) = &case.now;
        let mut expectations = Vec::new();
        for now in times {
            evaluator.now = *now;
            for object in &requested {
                let options = ClusterStateOptions {
                    complete: true,
                    ..ClusterStateOptions::default()
                };
                evaluator.cluster = ClusterState::of(&given, &defaults.namespace, options);
                let request = WriteRequest::of(object.clone(), &defaults)
                    .map_err(|error| CaseError::invalid(&path.display(), &error))?;
                record_history(&mut evaluator.cluster, &case.history, &request, *now);
                let evaluation = evaluator.evaluate(request).await;
                let time = (times.len() > 1).then_some(*now);
                expectations.push(Expectation::of(evaluation.as_ref(), object, time));
            }
        }
        Ok(CaseResult {
            expected: case.expect,
            actual: serde_json::to_value(&expectations).map_err(|error| CaseError::invalid(&path.display(), &error))?,
            expectations,
        })
    }

    /// taskgate's own schemas, and those of the CRDs among `given`.
    fn schemas_with(&self, given: &[Value]) -> Arc<Schemas> {
        let mut crds = given
            .iter()
            .filter(|object| object["kind"] == "CustomResourceDefinition")
            .peekable();
        if crds.peek().is_none() {
            return self.schemas.clone();
        }
        let mut schemas = Schemas::own();
        crds.for_each(|crd| schemas.add(crd));
        Arc::new(schemas)
    }

    /// Runs the case of `path` and writes the actual results into the file; whether the file changed.
    pub async fn update(&self, path: &Path) -> Result<bool, CaseError> {
        let result = self.run(path).await?;
        if result.passed() {
            return Ok(false);
        }
        update_file(path, &result.expectations)?;
        Ok(true)
    }
}

impl CaseFile {
    /// Reads the case of `path`.
    pub fn read(path: &Path) -> Result<Self, CaseError> {
        let text = read_text(path).map_err(|source| CaseError::io(path, source))?;
        typed(&text).map_err(|error| {
            let error = UnreadableDocument {
                file: path.display().to_string(),
                ..error
            };
            CaseError::invalid(&error.location(), &error.message)
        })
    }
}

/// Whether the file is a case, rather than objects that a case refers to.
pub fn is_case(path: &Path) -> bool {
    read_text(path).is_ok_and(|text| {
        let starts = |field: &str| text.lines().any(|line| line.starts_with(field));
        starts("objects:") && starts("now:")
    })
}

/// Reads the objects of `sources`; files are relative to `directory`.
fn objects(case: &Path, directory: &Path, sources: &[ObjectSource]) -> Result<Vec<Value>, CaseError> {
    let mut found = Vec::new();
    for source in sources {
        match source {
            ObjectSource::Object(object) => found.push(object.clone()),
            ObjectSource::File(file) => {
                let read = Documents::read(&[directory.join(file)], &|_, _| ());
                if let Some(bad) = read.unreadable.first() {
                    let message = format!("{}: {}", bad.location(), bad.message);
                    return Err(CaseError::invalid(&case.display(), &message));
                }
                found.extend(read.objects.into_iter().map(|document| document.object));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use futures::FutureExt as _;

    /// Without a cluster no future is pending.
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        future.now_or_never().expect("no future is pending")
    }

    const CASE: &str = r#"
case: A Task of an item that failed three times
now: [2026-11-20T12:00:00Z, 2026-11-22T12:00:00Z]   # time travel
user: system:serviceaccount:kelos-system:kelos
given:
- apiVersion: taskgate.dev/v1alpha1
  kind: TaskPolicy
  metadata: {name: agents, namespace: team-a}
  spec: {failurePolicy: {maxRetriesPerItem: 3, resetAfter: 24h}, metadata: {labels: {team: blue}}}
history:
- {failed: 2026-11-20T09:00:00Z, cost: "0.50"}
- {failed: 2026-11-20T10:00:00Z, cost: "0.50"}
- {failed: 2026-11-20T11:00:00Z}
- {succeeded: 2026-11-30T11:00:00Z}
expect: []
# What is asked for.
objects:
- apiVersion: kelos.dev/v1alpha2
  kind: Task
  metadata: {name: fixer-42, namespace: team-a, labels: {kelos.dev/taskspawner: fixer}}
  spec: {type: claude-code, prompt: Fix it.}
"#;

    #[test]
    fn each_time_is_evaluated_and_update_replaces_the_expectation_in_place() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("case.yaml");
        fs::write(&path, CASE)?;
        assert!(is_case(&path));
        let runner = CaseRunner::new("taskgate", "taskgate-system");
        let result = block_on(runner.run(&path))?;
        assert!(!result.passed() && !result.differences().is_empty());
        assert_eq!(result.actual[0]["verdict"], "denied", "{:#}", result.actual);
        let message = result.actual[0]["message"].as_str().unwrap_or_default();
        assert!(
            message.contains("item 42 failed 3 times in a row (limit 3)"),
            "{message}"
        );
        // A day after it opened, one probe may pass.
        assert_eq!(result.actual[1]["verdict"], "allowed", "{:#}", result.actual);
        assert!(block_on(runner.update(&path))?);
        let text = fs::read_to_string(&path)?;
        assert!(
            text.contains("# time travel") && text.contains("# What is asked for.\nobjects:"),
            "{text}"
        );
        assert!(block_on(runner.run(&path))?.passed(), "{text}");
        assert!(!block_on(runner.update(&path))?);
        Ok(())
    }

    #[test]
    fn a_case_of_any_shape_has_a_result_or_a_readable_error() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("case.yaml");
        let runner = CaseRunner::new("taskgate", "taskgate-system");
        let task = "{apiVersion: kelos.dev/v1alpha2, kind: Task, metadata: fixer-42}";
        for metadata in ["fixer-42", "[]", "7", "", "{labels: [x]}", "{name: a, namespace: 7}"] {
            let task = task.replace("fixer-42", metadata);
            fs::write(
                &path,
                format!("now: 2026-11-20T12:00:00Z\ngiven: [{task}]\nobjects: [{task}]\n"),
            )?;
            let result = block_on(runner.run(&path))?;
            assert_eq!(result.actual[0]["verdict"], "invalid", "{metadata}: {}", result.actual);
        }
        for (text, wanted) in [
            (
                "now: soon\nobjects: []\n",
                ":1:6: \"soon\" is no time such as 2026-11-20T12:00:00Z",
            ),
            (
                "now: []\nobjects: []\nhistory: [{failed: 7}]\n",
                ":3:20: 7 is no time such as 2026-11-20T12:00:00Z",
            ),
            ("now: []\nobjects: text\n", ":2:10: a list is expected"),
            ("text\n", ":1:1: a mapping is expected"),
            (
                "now: []\nobjects: [7]\n",
                "7 is neither an object nor the name of a file",
            ),
        ] {
            fs::write(&path, text)?;
            let error = CaseFile::read(&path).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
        Ok(())
    }

    #[test]
    fn a_misspelt_field_is_an_error_with_its_line() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("case.yaml");
        fs::write(&path, "now: 2026-11-20T12:00:00Z\nobjets: []\n")?;
        let error = CaseFile::read(&path).expect_err("objets").to_string();
        assert!(error.contains("case.yaml:2") && error.contains("objets"), "{error}");
        Ok(())
    }
}
