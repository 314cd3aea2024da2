//! How a stand-in runs.

use crate::journal::Journal;
use crate::outcome::Outcome;
use crate::seed::Seed;
use crate::types::AgenticTask;
use kelos_standin::Scope;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

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
