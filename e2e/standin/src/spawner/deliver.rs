//! Pushed sources (kelos §5): GitHub, Linear and generic webhooks, each delivery a Task of its own.

use super::{Item, Spawners, build, names};
use crate::cache::Key;
use crate::error::{Error, already_exists, has_code, message};
use crate::keys;
use crate::types::{Task, TaskSpawner};
use kube::ResourceExt;
use kube::api::PostParams;
use serde::Deserialize;
use std::sync::PoisonError;

/// One event for one spawner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Delivery {
    /// `issues`, `issue_comment`, `pull_request`, …; for the generic source its name.
    pub event: String,
    /// What the sender calls this delivery; the Task's name hangs on it.
    pub delivery_id: String,
    /// The item's own id.
    pub id: String,
    /// The item's number, 0 for none.
    pub number: i64,
    /// Its title.
    pub title: String,
    /// Its text.
    pub body: String,
    /// Its page.
    pub url: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// Owner of the repository.
    pub owner: String,
    /// Name of the repository.
    pub repository: String,
}

/// What became of a delivery. An error would be HTTP 500.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// A Task of this name was created.
    Created(String),
    /// This delivery was seen already, or its Task exists and is the spawner's.
    Duplicate,
    /// `maxConcurrency` is reached: the event is lost (kelos §5).
    Dropped,
    /// The spawner is suspended.
    Suspended,
}

impl Spawners {
    /// Processes a delivery. After an error the delivery's ID is dropped, so that a redelivery is processed.
    pub(crate) async fn deliver(&self, key: &Key, event: &Delivery) -> Result<Delivered, Error> {
        let seen = (key.clone(), event.delivery_id.clone());
        if !self.remember(&seen) {
            return Ok(Delivered::Duplicate);
        }
        let outcome = self.process(key, event).await;
        if outcome.is_err() {
            let deliveries = self.deliveries.lock();
            deliveries.unwrap_or_else(PoisonError::into_inner).remove(&seen);
        }
        outcome
    }

    fn remember(&self, seen: &(Key, String)) -> bool {
        let deliveries = self.deliveries.lock();
        deliveries.unwrap_or_else(PoisonError::into_inner).insert(seen.clone())
    }

    async fn process(&self, key: &Key, event: &Delivery) -> Result<Delivered, Error> {
        let spawner = self.get(key).await?;
        if spawner.spec.is_suspended() {
            return Ok(Delivered::Suspended);
        }
        let at_once = i64::from(spawner.spec.max_concurrency.unwrap_or(0));
        if at_once > 0 && spawner.current().active_tasks >= at_once {
            return Ok(Delivered::Dropped);
        }
        let failed = |error: String| Error::Items(format!("spawner {}: {error}", key.name));
        let item = item(&spawner, event);
        let name = names::delivered(&key.name, &event.event, &event.delivery_id);
        let mut task =
            build::task(&spawner, name, &item).map_err(|error| failed(format!("failed to build task: {error}")))?;
        let name = task.name_any();
        let template = &spawner.spec.task_template;
        if !template.name_template.is_empty() && self.exists(key, &spawner, &name).await? {
            return Ok(Delivered::Duplicate);
        }
        stamp(&spawner, event, &mut task);
        match self.tasks(key).create(&PostParams::default(), &task).await {
            Ok(_) => Ok(Delivered::Created(name)),
            Err(error) if already_exists(&error) => {
                self.exists(key, &spawner, &name).await?;
                Ok(Delivered::Duplicate)
            }
            Err(error) => Err(failed(format!("failed to create task: {}", message(&error)))),
        }
    }

    /// Whether the spawner's Task of that name exists, in any phase; anybody else's is an error.
    async fn exists(&self, key: &Key, spawner: &TaskSpawner, name: &str) -> Result<bool, Error> {
        let uid = spawner.uid().unwrap_or_default();
        match self.tasks(key).get(name).await {
            Ok(task) if names::owns(&key.name, &uid, &task) => Ok(true),
            Ok(_) => Err(Error::Items(format!(
                "task {name} name collides with an existing Task not owned by spawner {}",
                key.name
            ))),
            Err(error) if has_code(&error, 404) => Ok(false),
            Err(error) => Err(Error::kube("reading an existing Task of", key)(error)),
        }
    }
}

fn item(spawner: &TaskSpawner, event: &Delivery) -> Item {
    let when = &spawner.spec.when;
    let kind = if when.github_webhook.is_some() {
        "webhook"
    } else if when.linear_webhook.is_some() {
        "LinearWebhook"
    } else if when.slack.is_some() {
        "SlackMessage"
    } else {
        "GenericWebhook"
    };
    Item {
        id: event.id.clone(),
        number: event.number,
        title: event.title.clone(),
        body: event.body.clone(),
        url: event.url.clone(),
        labels: event.labels.clone(),
        kind: kind.to_owned(),
        ..Item::default()
    }
}

/// Kind, number and repository: GitHub only, with reporting, with a number (kelos §3).
fn stamp(spawner: &TaskSpawner, event: &Delivery, task: &mut Task) {
    let source = spawner.spec.when.github_webhook.as_ref();
    let Some(reporting) = source.and_then(|source| source.reporting.as_ref()) else {
        return;
    };
    if event.number == 0 || !(reporting.comments_on() || reporting.checks.is_some()) {
        return;
    }
    let kind = if event.event.starts_with("pull_request") {
        "pull-request"
    } else {
        "issue"
    };
    let annotations = task.annotations_mut();
    for (name, value) in [
        (keys::SOURCE_KIND, kind.to_owned()),
        (keys::SOURCE_NUMBER, event.number.to_string()),
        (keys::SOURCE_OWNER, event.owner.clone()),
        (keys::SOURCE_REPO, event.repository.clone()),
    ] {
        annotations.insert(name.to_owned(), value);
    }
    build::report(annotations, Some(reporting));
}
