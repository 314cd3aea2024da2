//! Plays the kubelet and the agent: pods of Tasks run when they exist, and end when a test or a script
//! says so. The job controller does the rest, as on a real cluster.

mod outcome;
mod pod;

pub use outcome::Outcome;

use crate::cache::{Cache, Key, Scope};
use crate::error::Error;
use crate::github::Seed;
use crate::keys;
use crate::queue::{Next, Queue};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::watcher::Config;
use kube::{Client, ResourceExt};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long [`Agents::finish`] waits for the pod to appear, and again for its end to show.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Decides how long a pod's agent runs, and how it ends; `None` for "until told".
type Script = Box<dyn Fn(&Pod) -> Option<(Duration, Outcome)> + Send + Sync>;

struct Inner {
    client: Client,
    script: Script,
    // By UID of the Job: a Task's next Job starts afresh.
    told: Mutex<BTreeMap<String, Outcome>>,
}

/// Running agents. They end when dropped; pods stay as they are.
pub struct Agents {
    inner: Arc<Inner>,
    pods: Arc<Cache<Pod>>,
    queue: Arc<Queue<Key>>,
    // Its drop ends the loops.
    _running: JoinSet<()>,
}

impl fmt::Debug for Agents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agents").finish_non_exhaustive()
    }
}

impl Agents {
    /// Agents that run until told.
    pub async fn start(client: Client, scope: &Scope) -> Self {
        Self::scripted(client, scope, |_| None).await
    }

    /// Agents that end as a seed's rules say; the first rule that fits a Task counts.
    pub async fn seeded(client: Client, scope: &Scope, seed: &Seed) -> Self {
        let rules = seed.agents.clone();
        Self::scripted(client, scope, move |pod| {
            let task = pod.labels().get(keys::TASK)?;
            let rule = rules.iter().find(|rule| fits(&rule.task, task))?;
            let outcome = match (rule.succeeds, rule.at_once) {
                (true, _) => Outcome::succeeded(),
                (false, true) => Outcome::failed_at_once(),
                (false, false) => Outcome::failed(),
            };
            let seconds = Duration::from_secs(rule.seconds);
            Some((seconds, outcome.with_log(&rule.log)))
        })
        .await
    }

    /// Agents that a closure decides about.
    pub async fn scripted(
        client: Client,
        scope: &Scope,
        script: impl Fn(&Pod) -> Option<(Duration, Outcome)> + Send + Sync + 'static,
    ) -> Self {
        let mut running = JoinSet::new();
        let queue: Arc<Queue<Key>> = Arc::default();
        let labelled = Config::default().labels(keys::TASK);
        let pods = Cache::start(&client, scope, &labelled, &mut running, {
            let queue = queue.clone();
            move |_: &Cache<Pod>, change| {
                if let Some(pod) = &change.new {
                    queue.add(Key::of(&**pod));
                }
            }
        });
        let inner = Arc::new(Inner {
            client,
            script: Box::new(script),
            told: Mutex::default(),
        });
        pods.synced().await;
        running.spawn(run(inner.clone(), pods.clone(), queue.clone()));
        Self {
            inner,
            pods,
            queue,
            _running: running,
        }
    }

    /// Ends the agent of a Task: waits for a pod of its present Job, ends it and every further pod of that
    /// Job like that, and returns when the pod has ended.
    ///
    /// # Errors
    /// When no pod appears or does not end within a minute each.
    pub async fn finish(&self, namespace: &str, task: &str, outcome: Outcome) -> Result<(), Error> {
        let key = Key::new(namespace, task);
        let deadline = Instant::now() + PATIENCE;
        let pod = loop {
            if let Some(pod) = self.live(&key).await? {
                break pod;
            }
            if Instant::now() > deadline {
                return Err(Error::gone("finishing the agent of Task", &key));
            }
            tokio::time::sleep(LOOK).await;
        };
        let job = pod::job_uid(&pod).unwrap_or_default().to_owned();
        self.inner.tell(job, outcome);
        let pod = Key::of(&*pod);
        self.queue.add(pod.clone());
        let deadline = Instant::now() + PATIENCE;
        while self.pods.get(&pod).is_some_and(|pod| !pod::has_ended(&pod)) {
            if Instant::now() > deadline {
                return Err(Error::gone("ending the agent of Task", &key));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// The pods of a Task that have not ended.
    pub fn running(&self, namespace: &str, task: &str) -> usize {
        let key = Key::new(namespace, task);
        self.of(&key).filter(|pod| !pod::has_ended(pod)).count()
    }

    /// A pod that has not ended, of the Job that exists now: pods outlive their Jobs for a moment.
    async fn live(&self, task: &Key) -> Result<Option<Arc<Pod>>, Error> {
        let jobs: Api<Job> = Api::namespaced(self.inner.client.clone(), &task.namespace);
        let job = jobs.get_opt(&task.name).await;
        let job = job.map_err(Error::kube("looking for the Job of Task", task))?;
        let Some(uid) = job.and_then(|job| job.metadata.uid) else {
            return Ok(None);
        };
        let mut pods = self.of(task);
        Ok(pods.find(|pod| !pod::has_ended(pod) && pod::job_uid(pod) == Some(&uid)))
    }

    fn of(&self, task: &Key) -> impl Iterator<Item = Arc<Pod>> {
        let name = task.name.clone();
        let pods = self.pods.list(&task.namespace).into_iter();
        pods.filter(move |pod| pod.labels().get(keys::TASK) == Some(&name))
    }
}

async fn run(inner: Arc<Inner>, pods: Arc<Cache<Pod>>, queue: Arc<Queue<Key>>) {
    loop {
        let key = queue.next().await;
        let outcome = match pods.get(&key) {
            Some(pod) => inner.play(&key, &pod).await,
            None => Ok(Next::Wait),
        };
        if let Err(error) = &outcome {
            tracing::debug!(pod = %key, %error, "pod not moved");
        }
        queue.finish(&key, &outcome);
    }
}

impl Inner {
    fn tell(&self, job: String, outcome: Outcome) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(job, outcome);
    }

    fn told(&self, pod: &Pod) -> Option<Outcome> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(pod::job_uid(pod)?).cloned()
    }

    fn pods(&self, key: &Key) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    /// One step of a pod's life.
    async fn play(&self, key: &Key, pod: &Pod) -> Result<Next, Error> {
        if pod::has_ended(pod) || pod.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Wait);
        }
        let Some(started) = pod::started(pod) else {
            return pod::start(&self.pods(key), key, pod).await;
        };
        let outcome = match self.told(pod) {
            Some(outcome) => outcome,
            None => match (self.script)(pod) {
                None => return Ok(Next::Wait),
                Some((runs, outcome)) => {
                    let ran = Timestamp::now().duration_since(started);
                    let ran = Duration::try_from(ran).unwrap_or_default();
                    let left = runs.saturating_sub(ran);
                    if !left.is_zero() {
                        return Ok(Next::After(left));
                    }
                    outcome
                }
            },
        };
        pod::end(&self.client, key, pod, &outcome).await?;
        Ok(Next::Wait)
    }
}

/// Whether a pattern with `*` fits.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            let starts = rest.char_indices().map(|(index, _)| index);
            starts.chain([rest.len()]).any(|at| fits(tail, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn stars_stand_for_any_text() {
        assert!(fits("fixer-42", "fixer-42"));
        assert!(!fits("fixer-42", "fixer-421"));
        assert!(fits("fixer-*", "fixer-42"));
        assert!(fits("*-42", "fixer-42"));
        assert!(fits("f*r-*2", "fixer-42"));
        assert!(fits("*", ""));
        assert!(!fits("f*x", "fixer"));
    }
}
