//! One discovery cycle (kelos S1–S15, §4), in Kelos' order.

use super::{Item, Spawners, build, conditions, discover, names};
use crate::cache::Key;
use crate::error::{Error, already_exists, has_code, message};
use crate::keys;
use crate::metrics::CycleResult;
use crate::types::{Task, TaskSpawner, Workspace};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use std::collections::BTreeMap;

/// How one item's creation ended.
enum Creation {
    Created,
    /// A Task of that name exists and is ours: no error, not counted (kelos S5).
    Exists,
    /// It existed, and is gone (kelos S5).
    Vanished(String),
    Failed(String),
}

impl Spawners {
    /// Discovers and works off, or only notes that the spawner is suspended (kelos S14).
    pub(super) async fn cycle(
        &self,
        key: &Key,
        spawner: TaskSpawner,
        workspace: &Workspace,
    ) -> Result<CycleResult, Error> {
        if spawner.spec.is_suspended() {
            self.suspend(key, &spawner).await?;
            return Ok(CycleResult::Suspended);
        }
        let when = &spawner.spec.when;
        let items = match (&when.github_issues, &when.github_pull_requests) {
            (Some(source), _) => discover::issues(&self.github, source, workspace).await,
            (None, Some(source)) => discover::pulls(&self.github, source, workspace).await,
            (None, None) => return Ok(CycleResult::Success),
        };
        let items = items.map_err(Error::Discover)?;
        self.metrics
            .items
            .inc_by(u64::try_from(items.len()).unwrap_or(u64::MAX));
        Box::pin(self.work_off(key, spawner, items)).await?;
        self.metrics.discovery.inc();
        Ok(CycleResult::Success)
    }

    async fn suspend(&self, key: &Key, spawner: &TaskSpawner) -> Result<(), Error> {
        if spawner.phase() == "Suspended" {
            return Ok(());
        }
        let mut spawner = self.get(key).await?;
        if !spawner.spec.is_suspended() || spawner.phase() == "Suspended" {
            return Ok(());
        }
        let generation = spawner.metadata.generation;
        let status = spawner.status.get_or_insert_default();
        "Suspended".clone_into(&mut status.phase);
        "Suspended by user".clone_into(&mut status.message);
        conditions::suspended(status, generation, true);
        self.put_status(key, &spawner).await
    }

    /// Creates what is missing, then writes the status, then fails if an item failed (kelos S6).
    pub(super) async fn work_off(&self, key: &Key, spawner: TaskSpawner, items: Vec<Item>) -> Result<(), Error> {
        let own = self.own_tasks(key, &spawner).await?;
        let terminal = |task: &&Task| self.capability.is_terminal(task.phase());
        let mut active = own.len() - own.values().filter(terminal).count();
        let discovered = items.len();
        let mut new = self.new_items(key, &spawner, &own, items).await?;
        discover::prioritise(&mut new, priorities(&spawner));
        let at_once = usize::try_from(spawner.spec.max_concurrency.unwrap_or(0)).unwrap_or(0);
        let ever = i64::from(spawner.spec.max_total_tasks.unwrap_or(0));
        let before = spawner.current().total_tasks_created;
        let mut created = 0;
        let mut errors = Vec::new();
        let mut missed = true;
        for item in &new {
            if (at_once > 0 && active >= at_once) || (ever > 0 && before + created >= ever) {
                break;
            }
            match self.create(key, &spawner, item).await {
                Creation::Created => {
                    created += 1;
                    active += 1;
                }
                Creation::Exists => {}
                Creation::Vanished(error) => errors.push(format!("item {}: {error}", item.id)),
                Creation::Failed(error) => {
                    missed = false;
                    errors.push(format!("item {}: {error}", item.id));
                }
            }
        }
        self.metrics.tasks.inc_by(u64::try_from(created).unwrap_or(0));
        let counts = Counts {
            discovered,
            created,
            active,
        };
        self.conclude(key, &spawner, &counts, &errors).await?;
        if errors.is_empty() {
            Ok(())
        } else {
            let said = errors.join("\n");
            Err(if missed {
                Error::Missed(said)
            } else {
                Error::Items(said)
            })
        }
    }

    /// The Tasks by name that carry the label and belong to this very spawner (kelos S2, S3).
    async fn own_tasks(&self, key: &Key, spawner: &TaskSpawner) -> Result<BTreeMap<String, Task>, Error> {
        let labelled = ListParams::default().labels(&format!("{}={}", keys::SPAWNER, key.name));
        let tasks = self.tasks(key).list(&labelled).await;
        let tasks = tasks.map_err(Error::kube("listing existing Tasks of", key))?;
        let uid = spawner.uid().unwrap_or_default();
        let own = tasks.into_iter().filter(|task| names::owns(&key.name, &uid, task));
        Ok(own.map(|task| (task.name_any(), task)).collect())
    }

    /// Items without a Task, and those whose finished Task a newer trigger makes obsolete: that one is
    /// deleted here (kelos S4).
    async fn new_items(
        &self,
        key: &Key,
        spawner: &TaskSpawner,
        own: &BTreeMap<String, Task>,
        items: Vec<Item>,
    ) -> Result<Vec<Item>, Error> {
        let mut new = Vec::new();
        for item in items {
            let default = names::polled(&key.name, &item.id);
            let name = match build::name(default, &spawner.spec.task_template, &item) {
                Ok(name) => name,
                Err(error) => {
                    let error = format!("resolving task name for item {}: {error}", item.id);
                    return Err(self.reject(key, error).await);
                }
            };
            let Some(existing) = own.get(&name) else {
                new.push(item);
                continue;
            };
            if !self.is_obsolete(existing, item.trigger) {
                continue;
            }
            let deleted = self.tasks(key);
            match deleted.delete(&name, &DeleteParams::background()).await {
                Err(error) if !has_code(&error, 404) => {
                    tracing::debug!(spawner = %key, task = name, %error, "not deleted for a retrigger");
                }
                _ => new.push(item),
            }
        }
        Ok(new)
    }

    fn is_obsolete(&self, task: &Task, trigger: Option<Timestamp>) -> bool {
        let (Some(trigger), Some(completed)) = (trigger, task.current().completion_time) else {
            return false;
        };
        self.capability.is_terminal(task.phase()) && trigger > completed.0
    }

    async fn create(&self, key: &Key, spawner: &TaskSpawner, item: &Item) -> Creation {
        let default = names::polled(&key.name, &item.id);
        let mut task = match build::task(spawner, default, item) {
            Ok(task) => task,
            Err(error) => return Creation::Failed(format!("building task: {error}")),
        };
        task.annotations_mut().extend(build::polled_annotations(spawner, item));
        let name = task.name_any();
        match self.tasks(key).create(&PostParams::default(), &task).await {
            Ok(_) => Creation::Created,
            Err(error) if already_exists(&error) => self.collision(key, spawner, &name).await,
            Err(error) => Creation::Failed(format!("creating Task {name}: {}", message(&error))),
        }
    }

    /// The name is taken: a Task of this spawner is fine, that of another owner or a deleted one is an error (kelos S5).
    async fn collision(&self, key: &Key, spawner: &TaskSpawner, name: &str) -> Creation {
        let uid = spawner.uid().unwrap_or_default();
        match self.tasks(key).get(name).await {
            Ok(task) if names::owns(&key.name, &uid, &task) => Creation::Exists,
            Ok(_) => Creation::Failed(format!(
                "task {name} name collides with an existing Task not owned by spawner {}",
                key.name
            )),
            Err(error) => {
                let said = format!("reading existing Task {name}: {}", message(&error));
                if has_code(&error, 404) {
                    Creation::Vanished(said)
                } else {
                    Creation::Failed(said)
                }
            }
        }
    }

    /// A name template that does not render: nothing is created, the watermark stays (kelos §4).
    async fn reject(&self, key: &Key, error: String) -> Error {
        let written = async {
            let mut spawner = self.get(key).await?;
            let generation = spawner.metadata.generation;
            let status = spawner.status.get_or_insert_default();
            "Failed".clone_into(&mut status.phase);
            status.message.clone_from(&error);
            conditions::discovery_error(status, generation, Some(&error));
            self.put_status(key, &spawner).await
        };
        match written.await {
            Ok(()) => Error::Configuration(error),
            Err(second) => Error::Configuration(format!("{error}\n{second}")),
        }
    }

    /// Reads the spawner again and writes its whole status (kelos S7, S13).
    async fn conclude(
        &self,
        key: &Key,
        started: &TaskSpawner,
        counts: &Counts,
        errors: &[String],
    ) -> Result<(), Error> {
        let mut spawner = self.get(key).await?;
        let joined = (!errors.is_empty()).then(|| errors.join("\n"));
        let generation = spawner.metadata.generation;
        let mut status = spawner.current();
        "Running".clone_into(&mut status.phase);
        status.last_discovery_time = Some(Time(Timestamp::now()));
        status.total_discovered = i64::try_from(counts.discovered).unwrap_or(i64::MAX);
        status.total_tasks_created += counts.created;
        status.active_tasks = i64::try_from(counts.active).unwrap_or(i64::MAX);
        status.message = format!(
            "Discovered {} items, created {} tasks total",
            counts.discovered, status.total_tasks_created
        );
        if let Some(joined) = &joined {
            let errors = errors.len();
            status.message = format!("{}; {errors} creation error(s): {joined}", status.message);
        }
        conditions::discovery_error(&mut status, generation, joined.as_deref());
        conditions::suspended(&mut status, generation, false);
        conditions::limit(&mut status, started);
        spawner.status = Some(status);
        self.put_status(key, &spawner).await
    }

    /// No retry: a conflict fails the cycle, and what it created is not counted (kelos S13).
    async fn put_status(&self, key: &Key, spawner: &TaskSpawner) -> Result<(), Error> {
        self.spawners(key)
            .replace_status(&key.name, &PostParams::default(), spawner)
            .await
            .map(drop)
            .map_err(Error::kube("updating the status of TaskSpawner", key))
    }
}

struct Counts {
    discovered: usize,
    created: i64,
    active: usize,
}

fn priorities(spawner: &TaskSpawner) -> &[String] {
    let when = &spawner.spec.when;
    let issues = when.github_issues.as_ref().map(|s| &s.priority_labels);
    let pulls = when.github_pull_requests.as_ref().map(|s| &s.priority_labels);
    issues.or(pulls).map_or(&[], Vec::as_slice)
}
