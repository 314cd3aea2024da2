//! Cases: files that say what is in a cluster, what is asked for and when, and what has to come of it.
//!
//! ```yaml
//! case: The fourth Task of an item is denied
//! now: 2026-11-20T12:00:00Z              # or several moments: each is judged
//! given: [policy.yaml, spawner.yaml]     # objects, or files beside this one
//! history:                               # how earlier Tasks of the same item ended
//! - {failed: 2026-11-20T10:00:00Z, cost: "0.50"}
//! objects: [task.yaml]                   # objects, or files; AdmissionReviews for updates
//! expect:                                # one entry per moment and object; `taskgate test --update` writes it
//! - verdict: denied
//!   message: "taskgate: item 42 failed …"
//! ```
//!
//! A case knows everything: what it does not give does not exist. Nothing outside its files has a say, so it gives the same
//! result everywhere and for ever.

mod expectation;
mod history;
mod update;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use taskgate_webhook::UserInfo;

use crate::{
    Defaults, Documents, Judge, Knowledge, Proposal, Registration, Schemas, World,
    diff::{Change, changes},
};
pub use expectation::Expectation;
use history::Past;

/// A case as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Case {
    /// What it shows, in one sentence.
    #[serde(default)]
    pub case: Option<String>,
    /// When it happens: one moment or several.
    now: Moments,
    /// Who asks.
    #[serde(default)]
    user: Option<String>,
    /// The groups of who asks.
    #[serde(default)]
    groups: Vec<String>,
    /// The namespace of objects that name none.
    #[serde(default)]
    namespace: Option<String>,
    /// What is in the cluster.
    #[serde(default)]
    given: Vec<Given>,
    /// How earlier Tasks of the item ended.
    #[serde(default)]
    history: Vec<Past>,
    /// What is asked for.
    objects: Vec<Given>,
    /// What has to come of it; absent until `--update` writes it.
    #[serde(default)]
    expect: Option<Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Moments {
    One(Timestamp),
    Several(Vec<Timestamp>),
}

/// An object, or a file with objects.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Given {
    File(PathBuf),
    Object(Value),
}

/// A case cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is no case.
    #[error("{place}: {message}")]
    Form {
        /// The file, with line and column where they are known.
        place: String,
        /// What is wrong.
        message: String,
    },
}

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What has to come of it; `None` when the case does not say.
    pub wanted: Option<Value>,
    /// What came of it.
    pub seen: Value,
    /// The same, in the order in which it is written.
    expectations: Vec<Expectation>,
}

impl Outcome {
    /// Whether it is as it has to be.
    pub fn passed(&self) -> bool {
        self.wanted.as_ref() == Some(&self.seen)
    }

    /// What differs: what was to come first, then what came.
    pub fn differences(&self) -> Vec<Change> {
        changes(self.wanted.as_ref().unwrap_or(&Value::Array(Vec::new())), &self.seen)
    }
}

/// Runs cases. What all of them share is made once.
#[derive(Debug)]
pub struct Runner {
    registration: Arc<Registration>,
    schemas: Arc<Schemas>,
}

impl Runner {
    /// For an installation whose Service is called `service`, in `namespace`.
    pub fn new(service: &str, namespace: &str) -> Self {
        Self {
            registration: Arc::new(Registration::generated(service, namespace)),
            schemas: Arc::new(Schemas::own()),
        }
    }

    /// Runs the case of `path`.
    pub async fn run(&self, path: &Path) -> Result<Outcome, CaseError> {
        let case = Case::read(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let given = objects(path, folder, &case.given)?;
        let asked = objects(path, folder, &case.objects)?;
        let form = |message: String| CaseError::Form {
            place: path.display().to_string(),
            message,
        };
        let mut defaults = Defaults::default();
        if let Some(username) = &case.user {
            defaults.user = UserInfo {
                username: username.clone(),
                groups: case.groups.clone(),
                ..UserInfo::default()
            };
        }
        if let Some(namespace) = &case.namespace {
            defaults.namespace.clone_from(namespace);
        }
        let found = Registration::among(&given).map_err(|error| form(error.to_string()))?;
        let mut judge = Judge {
            world: World::default(),
            registration: found.map_or_else(|| self.registration.clone(), Arc::new),
            schemas: self.schemas_with(&given),
            now: Timestamp::UNIX_EPOCH,
        };
        let moments = case.moments();
        let mut expectations = Vec::new();
        for now in &moments {
            judge.now = *now;
            for object in &asked {
                let knowledge = Knowledge {
                    complete: true,
                    ..Knowledge::default()
                };
                judge.world = World::of(&given, &defaults.namespace, knowledge);
                let proposal = Proposal::of(object.clone(), &defaults).map_err(|error| form(error.to_string()))?;
                history::remember(&mut judge.world, &case.history, &proposal, *now);
                let judgement = judge.judge(proposal).await;
                let moment = (moments.len() > 1).then_some(*now);
                expectations.push(Expectation::of(judgement.as_ref(), object, moment));
            }
        }
        Ok(Outcome {
            wanted: case.expect,
            seen: serde_json::to_value(&expectations).map_err(|error| form(error.to_string()))?,
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

    /// Runs the case of `path` and writes what came of it into the file. Whether the file changed.
    pub async fn update(&self, path: &Path) -> Result<bool, CaseError> {
        let outcome = self.run(path).await?;
        if outcome.passed() {
            return Ok(false);
        }
        update::write(path, &outcome.expectations)?;
        Ok(true)
    }
}

impl Case {
    /// Reads the case of `path`.
    pub fn read(path: &Path) -> Result<Self, CaseError> {
        let text = fs::read_to_string(path).map_err(|source| CaseError::Io {
            path: path.to_owned(),
            source,
        })?;
        serde_saphyr::from_str(&text).map_err(|error| {
            let at = error.location();
            let at = at
                .map(|at| format!(":{}:{}", at.line(), at.column()))
                .unwrap_or_default();
            CaseError::Form {
                place: format!("{}{at}", path.display()),
                message: error.without_snippet().to_string(),
            }
        })
    }

    fn moments(&self) -> Vec<Timestamp> {
        match &self.now {
            Moments::One(now) => vec![*now],
            Moments::Several(moments) => moments.clone(),
        }
    }
}

/// Whether the file may be a case, rather than objects that cases name: it says what has to come of something.
pub fn is_case(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| {
        let starts = |field: &str| text.lines().any(|line| line.starts_with(field));
        starts("objects:") && starts("now:")
    })
}

/// The objects of `given`; files are looked for in `folder`.
fn objects(case: &Path, folder: &Path, given: &[Given]) -> Result<Vec<Value>, CaseError> {
    let mut found = Vec::new();
    for given in given {
        match given {
            Given::Object(object) => found.push(object.clone()),
            Given::File(file) => {
                let read = Documents::read(&[folder.join(file)], &|_, _| ());
                if let Some(bad) = read.unreadable.first() {
                    let line = bad.line.map(|line| format!(":{line}")).unwrap_or_default();
                    return Err(CaseError::Form {
                        place: case.display().to_string(),
                        message: format!("{}{line}: {}", bad.file, bad.message),
                    });
                }
                found.extend(read.objects.into_iter().map(|document| document.object));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    /// Without a cluster nothing is waited for.
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        future.now_or_never().expect("nothing is waited for")
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
    fn time_passes_and_the_expectation_is_written_where_it_stood() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("case.yaml");
        fs::write(&path, CASE)?;
        assert!(is_case(&path));
        let runner = Runner::new("taskgate", "taskgate-system");
        let outcome = block_on(runner.run(&path))?;
        assert!(!outcome.passed() && !outcome.differences().is_empty());
        assert_eq!(outcome.seen[0]["verdict"], "denied", "{:#}", outcome.seen);
        let message = outcome.seen[0]["message"].as_str().unwrap_or_default();
        assert!(
            message.contains("item 42 failed 3 times in a row (limit 3)"),
            "{message}"
        );
        // A day after it opened, one probe may pass.
        assert_eq!(outcome.seen[1]["verdict"], "allowed", "{:#}", outcome.seen);
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
    fn a_misspelt_field_is_told_with_its_line() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("case.yaml");
        fs::write(&path, "now: 2026-11-20T12:00:00Z\nobjets: []\n")?;
        let error = Case::read(&path).expect_err("objets").to_string();
        assert!(error.contains("case.yaml:2") && error.contains("objets"), "{error}");
        Ok(())
    }
}
