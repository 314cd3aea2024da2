//! Foreman's agent: claims what is scheduled, runs it, tells how it ended. How it ends is said by a test or a script.
//!
//! A run looks every [`Options::liveness`] whether its task is still there, by name; a task made anew under that name
//! hides that the old one is gone (F16).

mod job;

use crate::condition;
use crate::error::{Error, has_code, tolerate_gone};
use crate::journal::Journal;
use crate::operator::task::{Against, NODE, write_status};
use crate::options::Options;
use crate::outcome::Outcome;
use crate::types::{Agent as AgentObject, AgenticTask};
use kelos_standin::Key;
use kelos_standin::cache::Cache;
use kelos_standin::queue::{Next, Queue};
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::Config;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long [`Agent::finish`] waits for a task to run, and again for its end to show.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// After so many failed looks at its task a run looks no more, and goes on.
const MISSES: usize = 3;

/// One agent process, for all tasks at once.
pub(crate) struct Agent {
    client: Client,
    options: Options,
    journal: Journal,
    tasks: Arc<Cache<AgenticTask>>,
    agents: Arc<Cache<AgentObject>>,
    // By UID of the task.
    told: Mutex<BTreeMap<String, Outcome>>,
    telling: Notify,
}

/// Starts the caches and the loop in `running`. What an earlier process left running is scheduled anew (F20).
pub(crate) async fn start(client: Client, options: Options, journal: Journal, running: &mut JoinSet<()>) -> Arc<Agent> {
    let queue: Arc<Queue<Key>> = Arc::default();
    let all = Config::default();
    let tasks = Cache::start(&client, &options.scope, &all, running, {
        let queue = queue.clone();
        move |_: &Cache<AgenticTask>, change| {
            if let Some(task) = &change.new {
                queue.add(Key::of(&**task));
            }
        }
    });
    let agents = Cache::start(&client, &options.scope, &all, running, |_: &Cache<AgentObject>, _| {});
    tokio::join!(tasks.synced(), agents.synced());
    let agent = Arc::new(Agent {
        client,
        options,
        journal,
        tasks,
        agents,
        told: Mutex::default(),
        telling: Notify::new(),
    });
    agent.recover().await;
    running.spawn(run(agent.clone(), queue));
    agent
}

async fn run(agent: Arc<Agent>, queue: Arc<Queue<Key>>) {
    // Its drop ends them, as the end of the process would.
    let mut executions = JoinSet::new();
    loop {
        let key = tokio::select! {
            key = queue.next() => key,
            Some(_) = executions.join_next() => continue,
        };
        let outcome = agent.claim(&key).await;
        match &outcome {
            Ok(Some(task)) => {
                executions.spawn(agent.clone().execute(key.clone(), task.clone()));
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(task = %key, %error, "not claimed"),
        }
        queue.finish(&key, &outcome.map(|_| Next::Wait));
    }
}

impl Agent {
    fn api(&self, key: &Key) -> Api<AgenticTask> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    async fn recover(&self) {
        let namespaces = match &self.options.scope {
            kelos_standin::Scope::Cluster => self.tasks.namespaces(),
            kelos_standin::Scope::Namespaces(names) => names.clone(),
        };
        for task in namespaces.iter().flat_map(|namespace| self.tasks.list(namespace)) {
            let key = Key::of(&*task);
            if task.phase() != "Running" {
                continue;
            }
            let reset = write_status(&self.client, &key, &task, Against::Seen, |status| {
                "Pending".clone_into(&mut status.phase);
                status.assigned_node.clear();
                (status.claimed_at, status.started_at) = (None, None);
                let told = format!("{NODE} was started anew");
                condition::set(&mut status.conditions, "Running", false, "AgentRestartRecovery", told);
            });
            if let Err(error) = reset.await {
                tracing::warn!(task = %key, %error, "left as it is");
            }
        }
    }

    /// The task as it is once claimed; `None` if it is not scheduled.
    async fn claim(&self, key: &Key) -> Result<Option<AgenticTask>, Error> {
        let Some(task) = self.tasks.get(key) else {
            return Ok(None);
        };
        if task.phase() != "Scheduled" || task.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let now = condition::now();
        let mut status = task.current();
        "Running".clone_into(&mut status.phase);
        (status.claimed_at, status.started_at) = (Some(now.clone()), Some(now));
        condition::set(&mut status.conditions, "Running", true, "Claimed", format!("by {NODE}"));
        let claimed = status.clone();
        write_status(&self.client, key, &task, Against::Seen, |old| *old = claimed).await?;
        let mut task = AgenticTask::clone(&task);
        task.status = Some(status);
        Ok(Some(task))
    }

    async fn execute(self: Arc<Self>, key: Key, task: AgenticTask) {
        let entry = self.journal.began(&task);
        let job = match self.start_job(&key, &task).await {
            Ok(job) => job,
            Err(error) => {
                tracing::warn!(task = %key, %error, "no Job");
                None
            }
        };
        let outcome = tokio::select! {
            outcome = self.outcome(&task) => Some(outcome),
            () = self.gone(&key) => None,
        };
        if let Some(outcome) = outcome {
            let ended = match &job {
                Some(job) => self.end_job(&key, job, outcome.ends_job_well(&task.spec.kind)).await,
                None => Ok(()),
            };
            let outcome = match ended {
                Ok(()) => outcome,
                Err(error) => Outcome::job_error(&error.to_string()),
            };
            if let Err(error) = self.report(&key, &task, &outcome).await {
                tracing::warn!(task = %key, %error, "end not told");
            }
        }
        self.journal.ended(entry);
    }

    /// When a test or the script says so.
    async fn outcome(&self, task: &AgenticTask) -> Outcome {
        match self.options.decide(task) {
            None => self.told(task).await,
            Some((runs, scripted)) => tokio::select! {
                told = self.told(task) => told,
                () = tokio::time::sleep(runs) => scripted,
            },
        }
    }

    async fn told(&self, task: &AgenticTask) -> Outcome {
        let uid = task.uid().unwrap_or_default();
        loop {
            let telling = self.telling.notified();
            tokio::pin!(telling);
            telling.as_mut().enable();
            let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
            match told {
                Some(outcome) => return outcome,
                None => telling.await,
            }
        }
    }

    /// Until the task of that name is gone or going. After three failed looks: never (F16).
    async fn gone(&self, key: &Key) {
        let mut misses = 0;
        while misses < MISSES {
            tokio::time::sleep(self.options.liveness).await;
            match self.api(key).get_opt(&key.name).await {
                Ok(Some(task)) if task.metadata.deletion_timestamp.is_none() => misses = 0,
                Ok(_) => return,
                Err(_) => misses += 1,
            }
        }
        std::future::pending::<()>().await;
    }

    /// Writes the end, unless the task of that name is claimed by another run (F16).
    async fn report(&self, key: &Key, task: &AgenticTask, outcome: &Outcome) -> Result<(), Error> {
        let found = self.api(key).get_opt(&key.name).await;
        let Some(fresh) = found.map_err(Error::kube("looking for AgenticTask", key))? else {
            return Ok(());
        };
        let (now, then) = (fresh.current(), task.current());
        if now.assigned_node != then.assigned_node || now.claimed_at != then.claimed_at {
            return Ok(());
        }
        if let Some(annotations) = outcome.annotations() {
            let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
            let patched = self.api(key).patch(&key.name, &PatchParams::default(), &patch).await;
            tolerate_gone(patched).map_err(Error::kube("annotating AgenticTask", key))?;
        }
        let written = write_status(&self.client, key, &fresh, Against::Nothing, |status| {
            outcome.apply(&fresh, status);
        })
        .await;
        match written {
            Err(error) if error.is_invalid() => {
                let refusal = error.to_string();
                write_status(&self.client, key, &fresh, Against::Nothing, |status| {
                    outcome.fallback(status, &refusal);
                })
                .await
            }
            written => written,
        }
    }

    /// Waits until the task runs, ends it like that, and returns when that shows.
    pub(crate) async fn finish(&self, key: &Key, outcome: Outcome) -> Result<AgenticTask, Error> {
        let runs = |task: &AgenticTask| task.phase() == "Running" && task.metadata.deletion_timestamp.is_none();
        let task = self.until(key, "waiting for the run of AgenticTask", runs).await?;
        let uid = task.uid().unwrap_or_default();
        self.told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(uid, outcome);
        self.telling.notify_waiters();
        self.until(key, "ending AgenticTask", AgenticTask::has_ended).await
    }

    async fn until(
        &self,
        key: &Key,
        doing: &'static str,
        condition: impl Fn(&AgenticTask) -> bool,
    ) -> Result<AgenticTask, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.api(key).get(&key.name).await;
            match found {
                Ok(task) if condition(&task) => return Ok(task),
                Err(error) if !has_code(&error, 404) => return Err(Error::kube(doing, key)(error)),
                _ if Instant::now() > deadline => {
                    return Err(Error::Late {
                        doing,
                        key: key.clone(),
                    });
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }
}
