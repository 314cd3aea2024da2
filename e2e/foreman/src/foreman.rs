//! A running stand-in.

use crate::agent::{self, Agent, Outcome};
use crate::error::Error;
use crate::journal::Journal;
use crate::operator;
use crate::seed::Seed;
use crate::serve;
use crate::types::AgenticTask;
use http::HeaderValue;
use http::header::USER_AGENT;
use kelos_standin::{Key, Scope};
use kube::{Client, Config};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Decides how long a task runs, and how it ends; `None` for "until told".
type Script = Arc<dyn Fn(&AgenticTask) -> Option<(Duration, Outcome)> + Send + Sync>;

/// How a stand-in runs.
#[derive(Clone)]
pub struct Options {
    /// Namespaces to watch.
    pub scope: Scope,
    /// Whether AgenticTasks of an Agent that does not exist are refused, as by Foreman's webhook (F5).
    pub webhooks: bool,
    /// Whether a Workload that is being deleted gets new children for those that are gone, as before LLMKube#950 (F13).
    pub renders_terminating: bool,
    /// How often a run looks whether its task is still there (F16).
    pub liveness: Duration,
    /// Whether verifications run as Jobs (F15).
    pub gate_jobs: bool,
    /// Where Jobs are made; `None` for the task's namespace.
    pub jobs_namespace: Option<String>,
    /// Where it is remembered what happened.
    pub journal: Journal,
    /// Where `/healthz`, `/runs` and `/finish` are served, on loopback; `None` for nowhere.
    pub listen: Option<SocketAddr>,
    script: Script,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// For these namespaces; agents that run until told.
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            webhooks: true,
            renders_terminating: false,
            liveness: Duration::from_secs(10),
            gate_jobs: false,
            jobs_namespace: None,
            journal: Journal::default(),
            listen: None,
            script: Arc::new(|_| None),
        }
    }

    /// With agents that a closure decides about.
    #[must_use]
    pub fn scripted(
        mut self,
        script: impl Fn(&AgenticTask) -> Option<(Duration, Outcome)> + Send + Sync + 'static,
    ) -> Self {
        self.script = Arc::new(script);
        self
    }

    /// With agents that end as a seed's rules say; the first rule that fits a task counts.
    #[must_use]
    pub fn seeded(self, seed: Seed) -> Self {
        self.scripted(move |task| seed.decide(task))
    }

    pub(crate) fn decide(&self, task: &AgenticTask) -> Option<(Duration, Outcome)> {
        (self.script)(task)
    }
}

/// A client that calls itself `foreman-standin`, so that audit logs and field managers tell it apart.
///
/// # Errors
/// Those of [`Client::try_from`].
pub fn client(mut config: Config) -> kube::Result<Client> {
    let agent = HeaderValue::from_static("foreman-standin");
    config.headers.push((USER_AGENT, agent));
    Client::try_from(config)
}

/// A running stand-in, operator and agent. It ends when dropped, or at [`Self::stop`].
pub struct Foreman {
    agent: Arc<Agent>,
    journal: Journal,
    running: JoinSet<()>,
}

impl fmt::Debug for Foreman {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foreman").finish_non_exhaustive()
    }
}

impl Foreman {
    /// Starts it, and returns when its caches are filled. The CRDs must be installed.
    ///
    /// # Errors
    /// When [`Options::listen`] cannot be bound.
    pub async fn start(client: Client, options: Options) -> std::io::Result<Self> {
        let mut running = JoinSet::new();
        let journal = options.journal.clone();
        operator::start(client.clone(), options.clone(), journal.clone(), &mut running).await;
        let listen = options.listen;
        let agent = agent::start(client, options, journal.clone(), &mut running).await;
        if let Some(address) = listen {
            serve::start(address, agent.clone(), journal.clone(), &mut running).await?;
        }
        Ok(Self {
            agent,
            journal,
            running,
        })
    }

    /// Ends every loop and every run, and waits until all have ended.
    pub async fn stop(mut self) {
        self.running.shutdown().await;
    }

    /// Waits until a loop ends by itself, which only a defect brings about.
    pub async fn failed(&mut self) {
        self.running.join_next().await;
    }

    /// Ends the run of a task: waits until it runs, and returns the task when it has ended.
    ///
    /// # Errors
    /// When it does not run or does not end within a minute each.
    pub async fn finish(&self, namespace: &str, task: &str, outcome: Outcome) -> Result<AgenticTask, Error> {
        self.agent.finish(&Key::new(namespace, task), outcome).await
    }

    /// What really happened.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }
}
