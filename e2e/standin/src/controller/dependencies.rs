//! `dependsOn` (kelos S25).

use super::{Controller, status};
use crate::cache::Key;
use crate::error::Error;
use crate::queue::Next;
use crate::types::Task;
use std::time::Duration;

/// How often a dependency that does not exist is looked for.
const MISSING: Duration = Duration::from_secs(5);
/// How often one that runs is looked at.
const UNFINISHED: Duration = Duration::from_secs(10);

impl Controller {
    /// `Some`: when to reconcile again, with the Task now Waiting or Failed.
    pub(super) async fn await_dependencies(&self, key: &Key, task: &Task) -> Result<Option<Next>, Error> {
        // Checked once only: a Waiting Task has passed this.
        if !task.spec.depends_on.is_empty()
            && task.phase() != "Waiting"
            && let Some(name) = self.circle(&key.namespace, &key.name, &mut Vec::new())
        {
            let message = format!("Circular dependency detected: cycle involves {name:?}");
            self.warn(task, "DependencyFailed", "Circular dependency detected")
                .await;
            self.fail_early(key, &message).await;
            return Ok(Some(Next::Wait));
        }
        for name in &task.spec.depends_on {
            let dependency = self.tasks.get(&Key::new(&key.namespace, name));
            let Some(dependency) = dependency else {
                let message = format!("Waiting for dependency {name:?} to be created");
                self.set_waiting(key, &message).await;
                return Ok(Some(Next::After(MISSING)));
            };
            match dependency.phase() {
                "Succeeded" => {}
                "Failed" => {
                    let message = format!("Dependency {name:?} failed");
                    self.fail_early(key, &message).await;
                    self.warn(task, "DependencyFailed", message).await;
                    self.count_completed(key, task, "Failed");
                    return Ok(Some(Next::Wait));
                }
                _ => {
                    let message = format!("Waiting for dependency {name:?}");
                    self.set_waiting(key, &message).await;
                    return Ok(Some(Next::After(UNFINISHED)));
                }
            }
        }
        Ok(None)
    }

    /// Fails a Task that never had a Job. An error is only logged.
    async fn fail_early(&self, key: &Key, message: &str) {
        let written = self.update_status(key, |status| {
            "Failed".clone_into(&mut status.phase);
            message.clone_into(&mut status.message);
            status.completion_time = Some(status::now());
        });
        if let Err(error) = written.await {
            tracing::debug!(task = %key, %error, "phase Failed not written");
        }
    }

    /// The Task that a walk along `dependsOn` meets twice.
    fn circle(&self, namespace: &str, name: &str, path: &mut Vec<String>) -> Option<String> {
        if path.iter().any(|seen| seen == name) {
            return Some(name.to_owned());
        }
        let task = self.tasks.get(&Key::new(namespace, name))?;
        path.push(name.to_owned());
        let mut dependencies = task.spec.depends_on.iter();
        let found = dependencies.find_map(|next| self.circle(namespace, next, path));
        path.pop();
        found
    }
}
