//! taskgate itself beside a control plane: the real binary, installed as users install it.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::process::Command;

use crate::access::Access;
use crate::kubectl::{Output, run};
use crate::metrics::get_text;
use crate::{ControlPlane, Metrics, Process, ProcessSpec, free_port, scrape, wrong_clock};

/// The namespace that taskgate runs in.
pub const GATE_NAMESPACE: &str = "taskgate-system";
/// The user that taskgate is.
pub const GATE_USER: &str = "system:serviceaccount:taskgate-system:taskgate";

/// Who taskgate is and what it may do, as it is shipped: every suite runs under these roles and no others.
const RIGHTS: [&str; 4] = [
    include_str!("../../manifests/base/namespace.yaml"),
    include_str!("../../manifests/base/service-account.yaml"),
    include_str!("../../manifests/base/rbac.yaml"),
    include_str!("../../manifests/base/limits.yaml"),
];

/// The chart's values, which say how much memory it may use.
const CHART_VALUES: &str = include_str!("../../manifests/chart/values.yaml");

/// A running `taskgate serve`, registered with the control plane.
///
/// The API server dials it on loopback; its certificate, its Secret and the `caBundle` are its own doing.
#[derive(Debug)]
pub struct Gate {
    process: Process,
    admin: String,
    url: String,
}

/// How a [`Gate`] is to be.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct GateBuilder {
    name: Option<String>,
    ready_within: Option<Duration>,
    registration: Vec<String>,
    serve: Vec<String>,
    kubeconfig: Option<PathBuf>,
    registered_at: Option<String>,
    grace: Option<Duration>,
    memory: Option<u64>,
    clock_ahead: Option<i64>,
}

impl GateBuilder {
    /// What its log and the errors call it, where there are several; `taskgate` if not told. They share a Lease; the API
    /// server asks the one that was started last.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How long it may take to be ready, where it has much to read first.
    pub fn ready_within(mut self, deadline: Duration) -> Self {
        self.ready_within = Some(deadline);
        self
    }

    /// Adds a flag of `taskgate manifests registration`.
    pub fn registration_flag(mut self, flag: impl Into<String>) -> Self {
        self.registration.push(flag.into());
        self
    }

    /// Adds a flag of `taskgate serve`.
    pub fn serve_flag(mut self, flag: impl Into<String>) -> Self {
        self.serve.push(flag.into());
        self
    }

    /// Lets it lead at once, without a Lease: while idle it writes nothing.
    pub fn without_leader_election(self) -> Self {
        self.serve_flag("--no-leader-election")
    }

    /// Lets it ask the GitHub at `url`, as often as each second.
    pub fn asking(self, url: impl Display) -> Self {
        self.serve_flag("--source-min-interval=1s")
            .serve_flag(format!("--github-api={url}"))
    }

    /// Registers another URL than its own, such as that of a [`Balancer`](crate::Balancer) before it.
    pub fn registered_at(mut self, url: impl Into<String>) -> Self {
        self.registered_at = Some(url.into());
        self
    }

    /// How long it may take to end after SIGTERM; 5 s if not told.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Kills it when it uses more memory than the chart lets its container use.
    ///
    /// # Panics
    /// If the chart has no limit in MiB.
    pub fn memory_limit_of_the_chart(mut self) -> Self {
        self.memory = Some(chart_memory_limit());
        self
    }

    /// Lets its wall clock be so many seconds ahead of that of the API server.
    pub fn clock_ahead(mut self, seconds: i64) -> Self {
        self.clock_ahead = Some(seconds);
        self
    }

    /// Lets taskgate act as whom this file says, instead of as its own service account.
    pub fn kubeconfig(mut self, file: PathBuf) -> Self {
        self.kubeconfig = Some(file);
        self
    }

    /// Installs CRDs, service account, roles and registration, starts taskgate, and waits until it is ready.
    ///
    /// # Errors
    /// If anything of that fails; with the end of taskgate's log if it is taskgate that fails.
    pub async fn start(self, cp: &ControlPlane) -> anyhow::Result<Gate> {
        let crds = taskgate(["manifests", "crds"]).await?;
        cp.install_crds(&crds).await?;
        cp.apply_yaml(&RIGHTS.join("\n---\n")).await?;
        let kubeconfig = match &self.kubeconfig {
            Some(file) => file.clone(),
            None => cp.kubeconfig_of_service_account(GATE_NAMESPACE, "taskgate").await?,
        };
        let url = format!("https://127.0.0.1:{}", free_port()?);
        register(cp, self.registered_at.as_deref().unwrap_or(&url), &self.registration).await?;
        let admin = format!("127.0.0.1:{}", free_port()?);
        // It is stopped often, and its grace is short.
        let told = self.serve.iter().any(|flag| flag.starts_with("--lame-duck"));
        let lame_duck = (!told).then_some("--lame-duck=2s");
        let spec = ProcessSpec::new(self.name.as_deref().unwrap_or("taskgate"), binary("taskgate")?)
            .args([
                "serve",
                "--listen",
                url.trim_start_matches("https://"),
                "--admin-listen",
                &admin,
            ])
            .args(["--cert-names", "127.0.0.1", "--log-format", "text", "--log", "info"])
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .args(lame_duck)
            .args(self.serve)
            .ready_at(format!("http://{admin}/readyz"));
        let spec = match self.grace {
            Some(grace) => spec.grace(grace),
            None => spec,
        };
        let spec = match self.ready_within {
            Some(deadline) => spec.ready_within(deadline),
            None => spec,
        };
        let spec = match self.memory {
            Some(bytes) => spec.memory(bytes),
            None => spec,
        };
        let spec = match self.clock_ahead {
            Some(seconds) => spec.clock_ahead(seconds, &wrong_clock::build(cp).await?),
            None => spec,
        };
        let process = cp.spawn(spec).await?;
        Ok(Gate { process, admin, url })
    }
}

impl Gate {
    /// How it is to be, before it is started.
    pub fn builder() -> GateBuilder {
        GateBuilder::default()
    }

    /// Installs and starts it, as it is by default.
    ///
    /// # Errors
    /// As [`GateBuilder::start`].
    pub async fn start(cp: &ControlPlane) -> anyhow::Result<Self> {
        Self::builder().start(cp).await
    }

    /// Its process, for tests that break it.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Where admission is served: `https://127.0.0.1:port`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL of a path on its admin port.
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }

    /// What its admin port answers at `path`.
    ///
    /// # Errors
    /// If it does not answer 2xx.
    pub async fn admin(&self, path: &str) -> anyhow::Result<String> {
        get_text(&self.admin_url(path)).await
    }

    /// What it counts.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn metrics(&self) -> anyhow::Result<Metrics> {
        scrape(&self.admin_url("/metrics")).await
    }
}

/// The memory limit of taskgate's container in the chart, in bytes.
///
/// # Panics
/// If the chart has no limit in MiB.
pub fn chart_memory_limit() -> u64 {
    let values: Value = serde_saphyr::from_str(CHART_VALUES).expect("the chart's values are YAML");
    let limit = values["resources"]["limits"]["memory"].as_str();
    let mebibytes = limit.and_then(|limit| limit.strip_suffix("Mi")?.parse::<u64>().ok());
    mebibytes.expect("the chart has a memory limit in MiB") << 20
}

/// Applies the registration at `url` that `flags` of `taskgate manifests registration` ask for.
///
/// # Errors
/// If taskgate or the API server refuses.
pub async fn register(cp: &ControlPlane, url: &str, flags: &[String]) -> anyhow::Result<()> {
    let mut args = vec!["manifests", "registration", "--url", url];
    args.extend(flags.iter().map(String::as_str));
    cp.apply_yaml(&taskgate(args).await?).await
}

/// What `taskgate` prints when it is run with `args`.
///
/// # Errors
/// If it is not built, or fails.
pub async fn taskgate<'a>(args: impl IntoIterator<Item = &'a str>) -> anyhow::Result<String> {
    run(Command::new(binary("taskgate")?).args(args)).await?.stdout_ok()
}

impl Access {
    /// Runs `taskgate` with `args` and this kubeconfig.
    ///
    /// # Errors
    /// If it is not built; that it fails is in the [`Output`].
    pub async fn taskgate(&self, kubeconfig: &Path, args: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(binary("taskgate")?);
        run(command.args(args).arg("--kubeconfig").arg(kubeconfig)).await
    }
}

/// The path of a binary of this workspace, built for the profile that this program was built for.
///
/// # Errors
/// If it is not built: cargo builds binaries of other packages only when asked to, as `make e2e` does.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("looking for the build folder")?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder: &Path| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is not built: run `cargo build --bins`, or use `make e2e`"))
}
