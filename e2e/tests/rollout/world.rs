//! A control plane with two replicas behind a balancer, a policy, and what the API server itself counts.

use anyhow::ensure;
use kelos_standin::CRDS;
use serde_json::json;
use taskgate_e2e::{Balancer, ControlPlane, Gate, GateBuilder, Namespace, PATIENCE, eventually};

use crate::load::{GOVERNED, Tally, is_governed};

pub(crate) struct World {
    pub(crate) cp: ControlPlane,
    pub(crate) ns: Namespace,
    pub(crate) balancer: Balancer,
    pub(crate) gates: [Gate; 2],
}

/// What the API server counts of calls to our webhooks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls {
    /// All that were made.
    pub(crate) made: f64,
    /// Those that failed, and the request with them.
    pub(crate) refused: f64,
    /// Those that failed, and the request went on.
    pub(crate) opened: f64,
}

impl World {
    /// Two replicas, each as `recipe` makes it.
    pub(crate) async fn start(recipe: impl Fn(GateBuilder) -> GateBuilder) -> anyhow::Result<Self> {
        Self::behind(Balancer::start().await?, recipe).await
    }

    /// The same behind this balancer.
    pub(crate) async fn behind(
        balancer: Balancer,
        recipe: impl Fn(GateBuilder) -> GateBuilder,
    ) -> anyhow::Result<Self> {
        let cp = ControlPlane::builder().crds(CRDS).audit(false).start().await?;
        Self::on(cp, balancer, recipe).await
    }

    /// The same on a control plane that is there already.
    pub(crate) async fn on(
        cp: ControlPlane,
        balancer: Balancer,
        recipe: impl Fn(GateBuilder) -> GateBuilder,
    ) -> anyhow::Result<Self> {
        let gate = |name: &str| {
            let gate = Gate::builder()
                .named(name)
                .registered_at(balancer.url())
                // A machine that has more to do must not make calls fail.
                .registration_flag("--mutating-timeout=5")
                .registration_flag("--validating-timeout=5");
            recipe(gate)
        };
        let gates = [gate("gate-a").start(&cp).await?, gate("gate-b").start(&cp).await?];
        for gate in &gates {
            balancer.add(gate);
        }
        let ns = cp.namespace("load").await?;
        let world = Self {
            cp,
            ns,
            balancer,
            gates,
        };
        world.both_are_ready().await?;
        world
            .govern(json!({"metadata": {"labels": {GOVERNED.0: GOVERNED.1}}}))
            .await?;
        Ok(world)
    }

    pub(crate) async fn both_are_ready(&self) -> anyhow::Result<()> {
        eventually("both replicas are ready", PATIENCE, || async {
            let ready = self.balancer.ready();
            ensure!(ready == 2, "{ready} ready");
            Ok(())
        })
        .await
    }

    /// Writes the policy, and waits until both replicas know it.
    async fn govern(&self, spec: serde_json::Value) -> anyhow::Result<()> {
        let policy = json!({
            "apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "agents"}, "spec": spec,
        });
        self.ns.apply_yaml(&policy.to_string()).await?;
        // Ten in a row: whichever replica is asked.
        let probe = json!({
            "apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": {"name": "probe"},
            "spec": {"type": "claude-code", "prompt": "fix", "credentials": {"type": "none"}},
        });
        let params = kube::api::PostParams {
            dry_run: true,
            ..Default::default()
        };
        let tasks = self.ns.api();
        let probe = serde_json::from_value(probe)?;
        eventually("both replicas know the policy", PATIENCE, || async {
            for _ in 0..10 {
                let seen = tasks.create(&params, &probe).await?;
                ensure!(is_governed(&seen), "{:?}", seen.metadata);
            }
            Ok(())
        })
        .await
    }

    /// Counts the failures of items as well.
    pub(crate) async fn account(&self) -> anyhow::Result<()> {
        let labels = json!({GOVERNED.0: GOVERNED.1});
        self.govern(json!({"metadata": {"labels": labels}, "failurePolicy": {"maxRetriesPerItem": 3}}))
            .await
    }

    pub(crate) async fn calls(&self) -> anyhow::Result<Calls> {
        let metrics = self.cp.apiserver_metrics().await?;
        let refused = "apiserver_admission_webhook_rejection_count";
        Ok(Calls {
            made: metrics.sum("apiserver_admission_webhook_request_total"),
            refused: metrics
                .value(refused, &[("error_type", "calling_webhook_error")])
                .unwrap_or(0.0),
            opened: metrics.sum("apiserver_admission_webhook_fail_open_count"),
        })
    }

    /// Every create was governed, and the API server saw no call fail since `before`.
    pub(crate) async fn nothing_was_lost(&self, before: Calls, tally: &Tally) -> anyhow::Result<()> {
        let after = self.calls().await?;
        let (refused, opened) = (after.refused - before.refused, after.opened - before.opened);
        let told = tally.failed.first().map_or("", String::as_str);
        eprintln!(
            "{} creates in {:.0?}, {} calls: {} creates failed, {} slipped through; {refused} calls refused, {opened} opened",
            tally.sent,
            tally.took,
            after.made - before.made,
            tally.failed.len(),
            tally.slipped.len(),
        );
        ensure!(
            tally.failed.is_empty(),
            "{} creates failed, such as: {told}",
            tally.failed.len()
        );
        ensure!(
            tally.slipped.is_empty(),
            "{} creates were not governed",
            tally.slipped.len()
        );
        ensure!(refused + opened == 0.0, "{refused} calls refused, {opened} opened");
        let calls = after.made - before.made;
        ensure!(
            calls >= 2.0 * f64::from(u32::try_from(tally.sent)?),
            "the API server made only {calls} calls"
        );
        Ok(())
    }
}
