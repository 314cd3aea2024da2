//! A fixture of this suite: two replicas behind a balancer, on a control plane of its own, and what the API server counts.

use anyhow::ensure;
use kelos_standin::CRDS;
use serde_json::{Value, json};
use taskgate_e2e::{Balancer, ControlPlane, Gate, GateBuilder, Namespace, PATIENCE, eventually, task};

use crate::load::{GOVERNED, is_governed};

pub(crate) struct ReplicaFixture {
    pub(crate) cp: ControlPlane,
    pub(crate) ns: Namespace,
    pub(crate) balancer: Balancer,
    pub(crate) gates: [Gate; 2],
}

impl ReplicaFixture {
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

    /// The same on this control plane.
    pub(crate) async fn on(
        cp: ControlPlane,
        balancer: Balancer,
        recipe: impl Fn(GateBuilder) -> GateBuilder,
    ) -> anyhow::Result<Self> {
        let gate = |name: &str| {
            let gate = Gate::builder()
                .named(name)
                .registered_at(balancer.url())
                // A busy machine must not make calls fail.
                .registration_flag("--mutating-timeout=5")
                .registration_flag("--validating-timeout=5");
            recipe(gate)
        };
        let gates = [gate("gate-a").start(&cp).await?, gate("gate-b").start(&cp).await?];
        for gate in &gates {
            balancer.add(gate);
        }
        let ns = cp.namespace("load").await?;
        let fixture = Self {
            cp,
            ns,
            balancer,
            gates,
        };
        fixture.both_are_ready().await?;
        let labels = json!({GOVERNED.0: GOVERNED.1});
        fixture.govern(&json!({"metadata": {"labels": labels}})).await?;
        Ok(fixture)
    }

    pub(crate) async fn both_are_ready(&self) -> anyhow::Result<()> {
        eventually("both replicas are ready", PATIENCE, || async {
            let ready = self.balancer.ready();
            ensure!(ready == 2, "{ready} ready");
            Ok(())
        })
        .await
    }

    /// Applies the policy, and waits until both replicas decide by it.
    pub(crate) async fn govern(&self, spec: &Value) -> anyhow::Result<()> {
        self.ns.apply_policy("agents", spec).await?;
        let params = kube::api::PostParams {
            dry_run: true,
            ..Default::default()
        };
        let tasks = self.ns.tasks();
        let probe = serde_json::from_value(task("probe"))?;
        eventually("both replicas have the policy", PATIENCE, || async {
            // Ten in a row: the balancer asks them in turn.
            for _ in 0..10 {
                let seen = tasks.create(&params, &probe).await?;
                ensure!(is_governed(&seen), "{:?}", seen.metadata);
            }
            Ok(())
        })
        .await
    }
}
