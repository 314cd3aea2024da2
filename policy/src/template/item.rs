//! The fields of an item that its Task has, without reading the issue source (kelos §3).

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::{Map, Value};
use taskgate_api::kelos::{SOURCE_KIND, SOURCE_NUMBER, SOURCE_OWNER, SOURCE_REPO, Task};

use crate::issue_source::{Repository, SpawnerInfo, WorkspaceInfo};

/// The known fields of the item of `task`.
pub(super) fn known(
    task: Task<'_>,
    spawner: Option<&SpawnerInfo>,
    workspace: Option<&WorkspaceInfo>,
) -> Map<String, Value> {
    let metadata = task.metadata();
    let number = metadata
        .annotation(SOURCE_NUMBER)
        .and_then(|number| number.trim().parse::<u64>().ok())
        .filter(|number| *number > 0);
    let kind = match metadata.annotation(SOURCE_KIND) {
        Some("issue") => Some("Issue"),
        Some("pull-request") => Some("PR"),
        _ => None,
    };
    let suffix = item_of_name(task);
    let schedule = spawner.and_then(|spawner| spawner.schedule.as_deref());
    let mut item = Map::new();
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            item.insert(key.to_owned(), value);
        }
    };
    let id = number
        .map(|number| number.to_string())
        .or(suffix.map(ToOwned::to_owned));
    set("id", id.map(Value::from));
    set("kind", kind.map(Value::from));
    set("number", number.map(Value::from));
    set("branch", task.branch().map(Value::from));
    set("schedule", schedule.map(Value::from));
    let tick = suffix.filter(|_| schedule.is_some()).and_then(tick);
    set("time", tick.map(|time| time.to_string().into()));
    let repository = repository(task, spawner, workspace);
    let url = repository.zip(kind).zip(number).map(|((repository, kind), number)| {
        let Repository { host, owner, name } = repository;
        let host = if host.is_empty() { "github.com" } else { &host };
        let path = if kind == "PR" { "pull" } else { "issues" };
        format!("https://{host}/{owner}/{name}/{path}/{number}")
    });
    set("url", url.map(Value::from));
    item
}

/// What the spawner's naming leaves when its own name is taken off.
fn item_of_name(task: Task<'_>) -> Option<&str> {
    let spawner = task.spawner()?.to_lowercase();
    let rest = task.metadata().name()?.strip_prefix(&spawner)?.strip_prefix('-')?;
    (!rest.is_empty()).then_some(rest)
}

/// The moment that a tick of a cron source is named after: `20261121-0300`, UTC.
fn tick(id: &str) -> Option<Timestamp> {
    let time = DateTime::strptime("%Y%m%d-%H%M", id).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Where the item lives: what a webhook stamped, else the spawner's own repository, else the Workspace's.
fn repository(task: Task<'_>, spawner: Option<&SpawnerInfo>, workspace: Option<&WorkspaceInfo>) -> Option<Repository> {
    let metadata = task.metadata();
    let stamped = metadata.annotation(SOURCE_OWNER).zip(metadata.annotation(SOURCE_REPO));
    let stamped = stamped.map(|(owner, name)| format!("{owner}/{name}"));
    let own = stamped
        .as_deref()
        .or_else(|| spawner.and_then(|spawner| spawner.repository.as_deref()));
    Repository::of(own, workspace.map_or("", |workspace| &workspace.repo))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn item(name: &str, annotations: &Value, spawner: &SpawnerInfo, repo: &str) -> Value {
        let task = json!({"metadata": {"name": name, "annotations": annotations,
            "labels": {"kelos.dev/taskspawner": "fixer"}}, "spec": {"branch": "fix"}});
        let workspace = WorkspaceInfo {
            repo: repo.into(),
            reference: None,
        };
        Value::Object(known(Task::of(&task), Some(spawner), Some(&workspace)))
    }

    #[test]
    fn an_issue_has_its_url_and_a_tick_its_time() {
        let polled = json!({"kelos.dev/source-kind": "pull-request", "kelos.dev/source-number": "42"});
        let plain = SpawnerInfo::default();
        assert_eq!(
            item("fixer-42", &polled, &plain, "https://github.com/acme/shop.git"),
            json!({"id": "42", "kind": "PR", "number": 42, "branch": "fix", "url": "https://github.com/acme/shop/pull/42"})
        );
        let other = SpawnerInfo {
            repository: Some("acme/other".into()),
            ..SpawnerInfo::default()
        };
        let other = item("fixer-42", &polled, &other, "https://ghe.example.com/acme/shop");
        assert_eq!(other["url"], json!("https://ghe.example.com/acme/other/pull/42"));
        let pushed = json!({"kelos.dev/source-kind": "issue", "kelos.dev/source-number": "7",
            "kelos.dev/source-owner": "Acme", "kelos.dev/source-repo": "web"});
        let pushed = item("fixer-issues-0a", &pushed, &plain, "");
        assert_eq!(pushed["url"], json!("https://github.com/Acme/web/issues/7"));
        let cron = SpawnerInfo {
            schedule: Some("0 3 * * *".into()),
            ..SpawnerInfo::default()
        };
        assert_eq!(
            item("fixer-20261121-0300", &json!({}), &cron, "https://github.com/acme/shop"),
            json!({"id": "20261121-0300", "branch": "fix", "schedule": "0 3 * * *", "time": "2026-11-21T03:00:00Z"})
        );
    }
}
