//! Runs the controller while this replica leads and taskgate is enabled.
//!
//! Imports `controller`, `leader_election` and `status`. Called by the `taskgate` binary.

use std::sync::Arc;

use kube::Client;
use taskgate_cache::ClusterCache;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    config::Config,
    controller::{self, Metrics},
    events::EventQueue,
    leader_election::{
        Leader, WriteFence, disabled,
        switch::{self, SwitchState},
    },
    status,
    workqueue::restart_on_panic,
};

/// Runs the controller until `shutdown`, while this replica leads and taskgate is enabled.
pub async fn run(client: Client, config: Config, metrics: Metrics, shutdown: CancellationToken) {
    let switch = watch::Sender::new(SwitchState::Unknown);
    let state = switch.subscribe();
    tokio::select! {
        () = switch::follow(&client, &config.namespace, config.cache.clock(), &metrics.leader, &switch) => {}
        () = run_when_leading(&client, &config, &metrics, &state, &shutdown) => {}
    }
}

/// Updates the condition `Accepted` of all policies, as `cache` has them, until `shutdown`.
///
/// RBAC: `patch` on the `status` of both kinds.
pub async fn run_policy_status(
    client: Client,
    cache: Arc<ClusterCache>,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    status::run_policy_status(client, cache, &metrics.panics, shutdown).await;
}

async fn run_when_leading(
    client: &Client,
    config: &Config,
    metrics: &Metrics,
    state: &watch::Receiver<SwitchState>,
    shutdown: &CancellationToken,
) {
    let Some(lease) = &config.lease else {
        metrics.leader.set_leader(true);
        let (events, sender) = EventQueue::start(client.clone(), &config.identity);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = work(client, &events, config, metrics, state) => warn!("the controller ended by itself"),
        }
        drop(events);
        sender.flush().await;
        return;
    };
    let fence = WriteFence::default();
    let fenced = fence.around(client.clone());
    let mut leader = Leader::new(
        client.clone(),
        &config.namespace,
        lease,
        &config.identity,
        fence.clone(),
        config.cache.clock().clone(),
    );
    while leader.acquire(shutdown).await {
        metrics.leader.set_leader(true);
        let (events, sender) = EventQueue::start(fenced.clone(), &config.identity);
        // In a separate tokio task, so that the Lease is renewed however busy the controller is.
        let end = shutdown.child_token();
        let until = end.clone();
        let end = end.drop_guard();
        let mut renewing = tokio::spawn(async move {
            leader.keep(&until).await;
            leader
        });
        let ended = tokio::select! {
            ended = &mut renewing => ended,
            () = work(&fenced, &events, config, metrics, state) => {
                warn!("the controller ended by itself");
                drop(end);
                renewing.await
            }
        };
        leader = ended.expect("the Lease's task neither panics nor is aborted");
        drop(events);
        if shutdown.is_cancelled() {
            // The Lease is still held.
            sender.flush().await;
        }
        fence.close();
        metrics.leader.set_leader(false);
        if shutdown.is_cancelled() {
            leader.release().await;
            return;
        }
    }
}

/// Runs what the switch says: the controller, or only the removal of finalizers.
async fn work(
    client: &Client,
    events: &EventQueue,
    config: &Config,
    metrics: &Metrics,
    state: &watch::Receiver<SwitchState>,
) {
    let working = async {
        let mut state = state.clone();
        loop {
            let now = state.borrow_and_update().clone();
            let is_same = |then: &SwitchState| std::mem::discriminant(then) == std::mem::discriminant(&now);
            let turned = state.wait_for(|then| !is_same(then));
            let ended = match &now {
                SwitchState::Unknown => turned.await.is_err(),
                SwitchState::Enabled { .. } => tokio::select! {
                    turned = turned => turned.is_err(),
                    // A panic outside the reconcile of one object restarts the whole controller.
                    () = restart_on_panic("lead", &metrics.panics, || {
                        controller::run(client, events, config, metrics)
                    }) => true,
                },
                SwitchState::Disabled => tokio::select! {
                    turned = turned => turned.is_err(),
                    () = disabled::run(client, &config.cache) => true,
                },
            };
            if ended {
                return;
            }
        }
    };
    tokio::select! {
        () = switch::reconcile_webhooks(client, &config.namespace, &config.configuration, state) => {}
        () = working => {}
    }
}
