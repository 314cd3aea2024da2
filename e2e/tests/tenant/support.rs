//! A fixture of this suite: a tenant that attacks and one that works, on the control plane and the taskgate that all tests share.
//! One attack at a time: the other tenant's latencies before an attack must not be those during another one.

use anyhow::{Context as _, bail, ensure};
use kelos_standin::CRDS;
use kube::ResourceExt as _;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::Value;
use taskgate_e2e::{
    ControlPlane, Gate, PATIENCE, Peer, SharedGate, Tenant, Victim, chart_memory_limit, eventually, task_of_item,
};
use tokio::sync::{Mutex, MutexGuard};

static SHARED: SharedGate = SharedGate::new(|| ControlPlane::builder().crds(CRDS));
static TURN: Mutex<()> = Mutex::const_new(());

pub(crate) struct TenantFixture {
    pub(crate) cp: &'static ControlPlane,
    pub(crate) gate: &'static Gate,
    /// The tenant that attacks.
    pub(crate) tenant: Tenant,
    pub(crate) victim: Victim,
    pid: u32,
    _turn: MutexGuard<'static, ()>,
}

impl TenantFixture {
    /// Waits for its turn. The tenant has no policy yet.
    pub(crate) async fn start(hint: &str) -> anyhow::Result<Self> {
        let turn = TURN.lock().await;
        let (cp, gate) = SHARED.get(Gate::builder().memory_limit_of_the_chart()).await?;
        ensure!(gate.process().is_running(), "an earlier attack ended taskgate");
        Ok(Self {
            cp,
            gate,
            tenant: cp.tenant(&format!("team-a-{hint}")).await?,
            victim: Victim::start(cp, &format!("team-b-{hint}")).await?,
            pid: gate.process().pid(),
            _turn: turn,
        })
    }

    /// The same with a policy in the tenant's namespace.
    pub(crate) async fn governed(hint: &str, spec: Value) -> anyhow::Result<Self> {
        let fixture = Self::start(hint).await?;
        fixture.policy(spec).await?;
        Ok(fixture)
    }

    /// Runs `attack` while the victim works; errors if it touches the victim's service, ends taskgate, or makes it use more
    /// memory than the chart allows.
    pub(crate) async fn attack<T>(&self, attack: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let result = self.victim.undisturbed(attack).await;
        let process = self.gate.process();
        if !process.is_running() {
            let seen = result.err().map_or("nothing".to_owned(), |error| format!("{error:#}"));
            let (exit, log) = (process.wait().await?, process.log_tail(20));
            bail!("the attack ended taskgate: {exit}; the victim saw {seen}; the end of the log:\n{log}");
        }
        ensure!(process.pid() == self.pid, "taskgate was restarted");
        let (peak, limit) = (process.peak_memory()?, chart_memory_limit());
        ensure!(peak < limit, "taskgate used {} MiB, of {}", peak >> 20, limit >> 20);
        result
    }

    /// Applies the tenant's policy, and waits until admission decides by it.
    pub(crate) async fn policy(&self, spec: Value) -> anyhow::Result<()> {
        let probe = task_of_item("probe", "probe");
        self.tenant.ns().policy_for(&probe, "agents", spec).await
    }

    /// Waits until the tenant's Tasks are reviewed under its policy, or are not.
    pub(crate) async fn await_reviewed(&self, reviewed: bool) -> anyhow::Result<()> {
        eventually(format!("Tasks are reviewed: {reviewed}"), PATIENCE, || async {
            let probe = self.tenant.dry_run(&task_of_item("probe", "probe")).await?;
            ensure!(probe.finalizers().is_empty() != reviewed);
            Ok(())
        })
        .await
    }

    /// A peer that is not the API server.
    pub(crate) async fn peer(&self) -> anyhow::Result<Peer> {
        Peer::new(self.cp, self.gate, 66).await
    }

    /// Creates a Task of the tenant, and ends it as Failed, as Kelos does, with further fields of its status.
    pub(crate) async fn fail(&self, object: &Value, status: Value) -> anyhow::Result<()> {
        let name = object["metadata"]["name"].as_str().context("a name")?;
        self.tenant.create(object).await?;
        self.tenant.ns().patch_failed(name, &status).await
    }

    /// The tenant's WorkItem of `item`, once `condition` holds for its status.
    pub(crate) async fn item(
        &self,
        item: &str,
        what: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        eventually(format!("item {item} {what}"), PATIENCE, || async {
            let items = self.tenant.ns().work_item_values().await?;
            let found = items.iter().find(|known| known["spec"]["item"] == *item);
            let status = found.map(|found| &found["status"]).context("no WorkItem")?;
            ensure!(condition(status), "{status:#}");
            Ok(status.clone())
        })
        .await
    }

    /// Patches an object of the tenant with its rights.
    pub(crate) async fn patch(
        &self,
        api_version: &str,
        kind: &str,
        name: &str,
        patch: Value,
    ) -> kube::Result<DynamicObject> {
        let api = self.tenant.api(api_version, kind);
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
    }
}

/// The API server's message about what it refused.
pub(crate) fn refusal<T: std::fmt::Debug>(result: anyhow::Result<T>) -> anyhow::Result<String> {
    match result {
        Ok(accepted) => bail!("it was accepted: {accepted:?}"),
        Err(error) => match error.downcast::<kube::Error>()? {
            kube::Error::Api(status) if (400..500).contains(&status.code) => Ok(status.message.clone()),
            other => Err(other.into()),
        },
    }
}
