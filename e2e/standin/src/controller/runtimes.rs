//! `TaskSpawner` objects as the controller sees them (kelos §4): the finalizer, the runtime object, and
//! for pushed sources the count of active Tasks.

use super::Controller;
use crate::cache::Key;
use crate::error::{Error, already_exists, has_code};
use crate::keys;
use crate::queue::Next;
use crate::types::{TaskSpawner, TaskSpawnerStatus};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::CronJob;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

impl Controller {
    fn spawner_api(&self, key: &Key) -> Api<TaskSpawner> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    pub(super) async fn reconcile_spawner(&self, key: &Key, runtimes: bool) -> Result<Next, Error> {
        let Some(cached) = self.spawners.get(key) else {
            return Ok(Next::Wait);
        };
        let mut spawner = TaskSpawner::clone(&cached);
        let has_finalizer = spawner.finalizers().iter().any(|f| f == keys::SPAWNER_FINALIZER);
        let deleted = spawner.meta().deletion_timestamp.is_some();
        if deleted && !has_finalizer {
            return Ok(Next::Wait);
        }
        if deleted || !has_finalizer {
            let finalizers = spawner.finalizers_mut();
            finalizers.retain(|f| f != keys::SPAWNER_FINALIZER);
            if !deleted {
                finalizers.push(keys::SPAWNER_FINALIZER.to_owned());
            }
            let put = self.spawner_api(key);
            put.replace(&key.name, &PostParams::default(), &spawner)
                .await
                .map_err(Error::kube("updating the finalizer of TaskSpawner", key))?;
            return Ok(if deleted { Next::Wait } else { Next::Again });
        }
        if spawner.spec.when.is_pushed() {
            return self.pushed(key, &spawner).await;
        }
        if runtimes {
            self.ensure_runtime(key, &spawner).await?;
        }
        self.note_runtime(key, &spawner, runtimes).await?;
        Ok(Next::Wait)
    }

    /// A Deployment of one replica, or a `CronJob`; no pod of it ever runs, since the loop is in this
    /// process.
    async fn ensure_runtime(&self, key: &Key, spawner: &TaskSpawner) -> Result<(), Error> {
        let meta = runtime_meta(key, spawner);
        if let Some(cron) = &spawner.spec.when.cron {
            let object = json!({"metadata": meta, "spec": {
                "schedule": cron.schedule, "suspend": spawner.spec.is_suspended(),
                "concurrencyPolicy": "Forbid", "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
                "jobTemplate": {"metadata": {"labels": meta["labels"]}, "spec": {
                    "backoffLimit": 0, "template": runtime_pod(&meta, key, "Never"),
                }},
            }});
            return self.ensure::<CronJob>(key, object, "suspend").await;
        }
        let replicas = i32::from(!spawner.spec.is_suspended());
        let object = json!({"metadata": meta, "spec": {
            "replicas": replicas, "selector": {"matchLabels": meta["labels"]},
            "template": runtime_pod(&meta, key, "Always"),
        }});
        self.ensure::<Deployment>(key, object, "replicas").await
    }

    async fn ensure<K>(&self, key: &Key, wanted: Value, switch: &str) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        const DOING: &str = "keeping the runtime of TaskSpawner";
        let api: Api<K> = Api::namespaced(self.client.clone(), &key.namespace);
        let object: K =
            serde_json::from_value(wanted.clone()).expect("the runtime's literal has the shape of its type");
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => return Ok(()),
            Err(error) if already_exists(&error) => {}
            Err(error) => return Err(Error::kube(DOING, key)(error)),
        }
        let current = api.get(&key.name).await.map_err(Error::kube(DOING, key))?;
        let current = serde_json::to_value(&current).unwrap_or_default();
        if current["spec"][switch] == wanted["spec"][switch] {
            return Ok(());
        }
        let patch = json!({"spec": {switch: wanted["spec"][switch]}});
        match api
            .patch(&key.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
        {
            Err(error) if !has_code(&error, 404) => Err(Error::kube(DOING, key)(error)),
            _ => Ok(()),
        }
    }

    async fn note_runtime(&self, key: &Key, spawner: &TaskSpawner, runtimes: bool) -> Result<(), Error> {
        let suspended = spawner.spec.is_suspended();
        let change = |status: &mut TaskSpawnerStatus| {
            if runtimes {
                let name = key.name.clone();
                if spawner.spec.when.cron.is_some() {
                    status.cron_job_name = name;
                } else {
                    status.deployment_name = name;
                }
            }
            let (phase, message) = match status.phase.as_str() {
                "Suspended" if !suspended => ("Running", "Resumed"),
                "Suspended" => return,
                _ if suspended => ("Suspended", "Suspended by user"),
                "" => ("Pending", ""),
                _ => return,
            };
            phase.clone_into(&mut status.phase);
            message.clone_into(&mut status.message);
        };
        self.update_spawner(key, change).await
    }

    /// A pushed source: the phase, and the active Tasks, which limit its concurrency (kelos §5).
    async fn pushed(&self, key: &Key, spawner: &TaskSpawner) -> Result<Next, Error> {
        let tasks = self.tasks.list(&key.namespace);
        let active = tasks.iter().filter(|task| {
            let own = task.labels().get(keys::SPAWNER) == Some(&key.name);
            own && !self.capability.is_terminal(task.phase())
        });
        let active = i64::try_from(active.count()).unwrap_or(i64::MAX);
        let (phase, message) = if spawner.spec.is_suspended() {
            ("Suspended", "Suspended by user")
        } else {
            ("Running", "Webhook-driven TaskSpawner ready")
        };
        let change = |status: &mut TaskSpawnerStatus| {
            phase.clone_into(&mut status.phase);
            message.clone_into(&mut status.message);
            status.active_tasks = active;
        };
        self.update_spawner(key, change).await?;
        Ok(Next::Wait)
    }

    /// Writes only what changed, again on a conflict.
    async fn update_spawner(&self, key: &Key, change: impl Fn(&mut TaskSpawnerStatus)) -> Result<(), Error> {
        const DOING: &str = "updating the status of TaskSpawner";
        let api = self.spawner_api(key);
        for attempt in 1.. {
            let Some(cached) = self.spawners.get(key) else {
                return Ok(());
            };
            let mut spawner = TaskSpawner::clone(&cached);
            let before = spawner.current();
            change(spawner.status.get_or_insert_default());
            if spawner.current() == before {
                break;
            }
            let put = api.replace_status(&key.name, &PostParams::default(), &spawner).await;
            match put.map_err(Error::kube(DOING, key)) {
                Ok(_) => break,
                Err(error) if error.is_conflict() && attempt < 5 => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

fn runtime_meta(key: &Key, spawner: &TaskSpawner) -> Value {
    json!({
        "name": key.name, "namespace": key.namespace,
        "labels": {
            keys::NAME: "kelos", keys::COMPONENT: "spawner",
            keys::MANAGED_BY: "kelos-controller", keys::SPAWNER: key.name,
        },
        "ownerReferences": [{
            "apiVersion": keys::API_VERSION, "kind": "TaskSpawner", "name": key.name,
            "uid": spawner.uid(), "controller": true, "blockOwnerDeletion": true,
        }],
    })
}

fn runtime_pod(meta: &Value, key: &Key, restart: &str) -> Value {
    let arguments = [
        format!("--taskspawner-name={}", key.name),
        format!("--taskspawner-namespace={}", key.namespace),
    ];
    json!({"metadata": {"labels": meta["labels"]}, "spec": {
        "restartPolicy": restart,
        "containers": [{"name": "spawner", "image": "kelos/spawner:standin", "args": arguments}],
    }})
}
