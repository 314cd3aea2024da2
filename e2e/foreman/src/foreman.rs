//! A running stand-in.

use crate::agent::{self, Agent};
use crate::error::Error;
use crate::journal::Journal;
use crate::operator;
use crate::options::Options;
use crate::outcome::Outcome;
use crate::serve;
use crate::types::AgenticTask;
use http::HeaderValue;
use http::header::USER_AGENT;
use kelos_standin::Key;
use kube::{Client, Config};
use std::fmt;
use std::sync::Arc;
use tokio::task::JoinSet;

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
