//! Whenever this replica leads and taskgate is not disabled, it runs the controller.

use kube::Client;
use taskgate_api::{kueue::ConfigRef, task_policy::RetriedKind};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    fence::Fence,
    lead::lead,
    leader::Leader,
    metrics::Metrics,
    policies::SharedPolicies,
    source::SourceConfig,
    step_aside,
    switch::{self, State},
    unwinding::restarted,
};

/// How the controller runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Taskgate's own namespace, where the Lease is.
    pub namespace: String,
    /// The name of the Lease. `None`: there is only this replica, which leads always and writes nothing at rest.
    pub lease: Option<String>,
    /// Who this replica is: different for each, such as the pod's name.
    pub identity: String,
    /// The name of taskgate's webhook configurations.
    pub configuration: String,
    /// How many `WorkItem`s a namespace may have.
    pub work_items_per_namespace: usize,
    /// How the sources of items are read.
    pub sources: SourceConfig,
    /// Where Kueue's configuration is; `None` where taskgate does without Kueue.
    pub kueue: Option<ConfigRef>,
    /// Whether Foreman's Workloads are retried.
    pub foreman: bool,
    /// Whether Tasks are retried.
    pub task_retry: bool,
    /// The policies.
    pub policies: SharedPolicies,
}

impl Config {
    /// The kinds that are retried.
    pub(crate) fn retried_kinds(&self) -> Vec<RetriedKind> {
        let kinds = [
            (RetriedKind::Workload, self.foreman),
            (RetriedKind::Task, self.task_retry),
        ];
        kinds
            .into_iter()
            .filter_map(|(kind, enabled)| enabled.then_some(kind))
            .collect()
    }
}

/// Runs the controller until `shutdown`: whenever this replica leads and taskgate is not disabled.
pub async fn run(client: Client, config: Config, metrics: Metrics, shutdown: CancellationToken) {
    let switch = watch::Sender::new(State::Unknown);
    let state = switch.subscribe();
    tokio::select! {
        () = switch::follow(&client, &config.namespace, &metrics, &switch) => {}
        () = run_when_leading(&client, &config, &metrics, &state, &shutdown) => {}
    }
}

async fn run_when_leading(
    client: &Client,
    config: &Config,
    metrics: &Metrics,
    state: &watch::Receiver<State>,
    shutdown: &CancellationToken,
) {
    let Some(lease) = &config.lease else {
        metrics.leads(true);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = work(client, config, metrics, state) => warn!("the controller ended by itself"),
        }
        return;
    };
    let fence = Fence::default();
    let fenced = fence.around(client.clone());
    let mut leader = Leader::new(
        client.clone(),
        &config.namespace,
        lease,
        &config.identity,
        fence.clone(),
    );
    while leader.acquire(shutdown).await {
        metrics.leads(true);
        // In a task of its own: however busy the work is, the Lease is renewed.
        let end = shutdown.child_token();
        let until = end.clone();
        let end = end.drop_guard();
        let mut keeping = tokio::spawn(async move {
            leader.keep(&until).await;
            leader
        });
        let kept = tokio::select! {
            kept = &mut keeping => kept,
            () = work(&fenced, config, metrics, state) => {
                warn!("the controller ended by itself");
                drop(end);
                keeping.await
            }
        };
        leader = kept.expect("the Lease's task neither panics nor is aborted");
        fence.close();
        metrics.leads(false);
        if shutdown.is_cancelled() {
            leader.release().await;
            return;
        }
    }
}

/// What the leader does: as the switch says.
async fn work(client: &Client, config: &Config, metrics: &Metrics, state: &watch::Receiver<State>) {
    let working = async {
        let mut state = state.clone();
        loop {
            let now = state.borrow_and_update().clone();
            let is_same = |then: &State| std::mem::discriminant(then) == std::mem::discriminant(&now);
            let turned = state.wait_for(|then| !is_same(then));
            let ended = match &now {
                State::Unknown => turned.await.is_err(),
                State::Enabled { .. } => tokio::select! {
                    turned = turned => turned.is_err(),
                    // What panics there is no reconcile of one object: all of it starts anew.
                    () = restarted("lead", metrics, || lead(client.clone(), config, metrics)) => true,
                },
                State::Disabled => tokio::select! {
                    turned = turned => turned.is_err(),
                    () = step_aside::run(client) => true,
                },
            };
            if ended {
                return;
            }
        }
    };
    tokio::select! {
        () = switch::obey(client, &config.namespace, &config.configuration, state) => {}
        () = working => {}
    }
}
