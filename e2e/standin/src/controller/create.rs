//! Creating the Job (kelos S17, S23).

use super::{Controller, job};
use crate::cache::Key;
use crate::error::{Error, already_exists};
use crate::queue::Next;
use crate::types::Task;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, PostParams};
use std::time::Duration;

/// How often a missing Workspace is looked for. The branch stays locked meanwhile (kelos §6.5).
const WORKSPACE: Duration = Duration::from_secs(2);

impl Controller {
    /// Job first, status second. A refusal is an error and nothing else: no status, no Event, and the
    /// branch stays locked (kelos S23).
    pub(super) async fn create_job(&self, key: &Key, task: &Task) -> Result<Next, Error> {
        let workspace = match task.spec.workspace() {
            None => None,
            Some(name) => match self.workspaces.get(&Key::new(&key.namespace, name)) {
                None => return Ok(Next::After(WORKSPACE)),
                found => found,
            },
        };
        let job = job::build(task, workspace.as_deref().map(|w| &w.spec));
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
        match jobs.create(&PostParams::default(), &job).await {
            Ok(_) => {}
            Err(error) if already_exists(&error) => return Ok(Next::Again),
            Err(error) => return Err(Error::kube("creating Job", key)(error)),
        }
        let note = format!("Created Job {} for task", key.name);
        self.note(task, "TaskCreated", note).await;
        self.count_created(key, task);
        self.update_status(key, |status| {
            "Pending".clone_into(&mut status.phase);
            status.job_name.clone_from(&key.name);
            status.message.clear();
        })
        .await?;
        Ok(Next::Again)
    }
}
