//! Reconciling a Workload.

use super::{Operator, plan, rollup, rounds};
use crate::condition;
use crate::error::Error;
use crate::keys;
use crate::merge;
use crate::types::{AgenticTask, Workload, WorkloadStatus};
use kelos_standin::Key;
use kelos_standin::queue::Next;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

impl Operator {
    /// Whatever the phase says: children there, roll up; none there, plan and render (F9, F10).
    pub(super) async fn reconcile_workload(&self, key: &Key) -> Result<Next, Error> {
        let Some(workload) = self.workloads.get(key) else {
            return Ok(Next::Wait);
        };
        if workload.metadata.deletion_timestamp.is_some() && !self.options.renders_terminating {
            return Ok(Next::Wait);
        }
        let mut workload = Workload::clone(&workload);
        let children = self.children(key);
        if children.is_empty() {
            self.plan(key, &mut workload).await
        } else {
            self.roll_up(key, &mut workload, children).await
        }
    }

    /// By label, never by owner (F12).
    fn children(&self, key: &Key) -> Vec<AgenticTask> {
        let of_it = |task: &AgenticTask| task.labels().get(keys::WORKLOAD) == Some(&key.name);
        let tasks = self.tasks.list(&key.namespace).into_iter();
        tasks
            .filter(|task| of_it(task))
            .map(|task| AgenticTask::clone(&task))
            .collect()
    }

    async fn plan(&self, key: &Key, workload: &mut Workload) -> Result<Next, Error> {
        let plan = match plan::choose(workload) {
            Ok(plan) => plan,
            Err(why) => return self.fail(key, workload, "NoPlannerOrPipeline", why.to_owned()).await,
        };
        if !matches!(workload.phase(), "Planning" | "Planned" | "Dispatched") {
            let model = match workload.spec.planner_model.as_str() {
                "" => "stub:explicit-pipeline",
                model => model,
            };
            let model = model.to_owned();
            self.write_status(key, workload, |status| {
                "Planning".clone_into(&mut status.phase);
                status.planner_model = model;
            })
            .await?;
        }
        let (created, error) = self.render(key, workload, &plan.steps).await;
        if let Some(error) = &error
            && error.is_invalid()
        {
            let why = format!("an AgenticTask was refused: {error}");
            return self.fail(key, workload, "AgentResolveFailed", why).await;
        }
        self.write_status(key, workload, |status| {
            let told = format!("{} AgenticTasks", created.len());
            status.tasks = created;
            let conditions = &mut status.conditions;
            if let Some(error) = &error {
                condition::set(conditions, "Planned", false, "RenderError", error.to_string());
            } else {
                "Planned".clone_into(&mut status.phase);
                condition::set(conditions, "Planned", true, "PlannerSucceeded", told);
            }
            if plan.truncated {
                let told = "maxTasks has cut the plan short".to_owned();
                condition::set(&mut status.conditions, "Truncated", true, "MaxTasksCap", told);
            }
        })
        .await?;
        error.map_or(Ok(Next::Wait), Err)
    }

    /// Failed before there is any child: of the conditions only Planned tells (F4, F5).
    async fn fail(&self, key: &Key, workload: &mut Workload, reason: &str, why: String) -> Result<Next, Error> {
        self.write_status(key, workload, |status| {
            "Failed".clone_into(&mut status.phase);
            condition::set(&mut status.conditions, "Planned", false, reason, why);
        })
        .await?;
        Ok(Next::Wait)
    }

    async fn roll_up(&self, key: &Key, workload: &mut Workload, mut children: Vec<AgenticTask>) -> Result<Next, Error> {
        let steps = rounds::due(workload, &children);
        let room = workload.spec.max_tasks == 0 || children.len() + steps.len() <= workload.spec.max_tasks;
        if !steps.is_empty() && room {
            let (created, error) = self.render(key, workload, &steps).await;
            let names = children.iter().map(AgenticTask::step);
            let rounds = rounds::count(workload, &names.chain(steps.iter().map(|step| step.name.as_str())));
            self.write_status(key, workload, |status| {
                let known = |task: &&serde_json::Value| !status.tasks.contains(task);
                let new: Vec<_> = created.iter().filter(known).cloned().collect();
                status.tasks.extend(new);
                status.review_iterations = Some(rounds);
                let told = format!("{} AgenticTasks after a reviewer's NO-GO", created.len());
                condition::set(
                    &mut status.conditions,
                    "ReviewIterationTriggered",
                    true,
                    "ReviewerNoGo",
                    told,
                );
            })
            .await?;
            if let Some(error) = error {
                return Err(error);
            }
            // The cache does not hold them yet; they are in flight all the same.
            children.extend(steps.iter().map(|step| super::render::placeholder(key, step)));
        }
        let active = rounds::active(workload, children);
        self.write_status(key, workload, |status| rollup::apply(status, &active))
            .await?;
        Ok(Next::Wait)
    }

    /// A merge patch of what changed, without a resourceVersion.
    async fn write_status(
        &self,
        key: &Key,
        workload: &mut Workload,
        change: impl FnOnce(&mut WorkloadStatus),
    ) -> Result<(), Error> {
        let before = workload.current();
        let mut after = before.clone();
        change(&mut after);
        let values = (serde_json::to_value(&before), serde_json::to_value(&after));
        let (Ok(old), Ok(new)) = values else {
            return values.0.and(values.1).map(drop).map_err(Error::json(key));
        };
        let Some(patch) = merge::between(&old, &new) else {
            return Ok(());
        };
        let api: Api<Workload> = Api::namespaced(self.client.clone(), &key.namespace);
        let patch = Patch::Merge(json!({"status": patch}));
        api.patch_status(&key.name, &PatchParams::default(), &patch)
            .await
            .map_err(Error::kube("writing the status of Workload", key))?;
        workload.status = Some(after);
        Ok(())
    }
}
