//! The control plane: three components, one directory, one supervisor.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;

use crate::access::Access;
use crate::assets::assets;
use crate::audit::Audit;
use crate::builder::{Builder, Keep};
use crate::components::{self, Ports};
use crate::kubeconfig::Identity;
use crate::pki::{self, Pki};
use crate::process::Process;
use crate::process_spec::ProcessSpec;
use crate::supervisor::Supervisor;
use crate::wait::{PATIENCE, eventually};

/// Ports can be taken between choosing and binding them; then all starts anew.
const ATTEMPTS: usize = 3;

/// A running Kubernetes control plane. Dropping it ends it.
///
/// It reaches its API server through [`Access`], to which it dereferences.
#[derive(Debug)]
pub struct ControlPlane {
    access: Access,
    etcd: Process,
    apiserver: Process,
    controller_manager: Process,
    supervisor: Arc<Supervisor>,
    etcd_url: String,
}

impl ControlPlane {
    /// Starts one: about 5 s, and minutes once per machine to build it.
    ///
    /// It is ready when the API server says so and `default` has its service account, so
    /// that pods can be created.
    ///
    /// # Errors
    /// If a component does not start; with the tail of its log.
    pub async fn start() -> anyhow::Result<Self> {
        Self::builder().start().await
    }

    /// To start one with options.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) async fn start_as(builder: &Builder) -> anyhow::Result<Self> {
        let assets = assets().await?;
        let mut attempt = 1;
        loop {
            match Self::try_start(assets, builder).await {
                Err(error) if attempt < ATTEMPTS && port_was_taken(&error) => {
                    tracing::info!(attempt, "a port was taken meanwhile, starting anew");
                    attempt += 1;
                }
                done => return done.context("starting a control plane"),
            }
        }
    }

    async fn try_start(assets: &Path, builder: &Builder) -> anyhow::Result<Self> {
        let supervisor = Arc::new(Supervisor::start(&assets.join("supervise"), builder.keep)?);
        let dir = supervisor.dir().to_owned();
        let ports = Ports::pick()?;

        let etcd = Process::spawn(supervisor.clone(), components::etcd(assets, ports)).await?;

        let pki_dir = dir.join("pki");
        std::fs::create_dir(&pki_dir)?;
        let pki = Pki::write(&pki_dir)?;
        components::write_audit_policy(&dir)?;
        for (name, content) in &builder.files {
            std::fs::write(dir.join(name), content)?;
        }
        let server = format!("https://127.0.0.1:{}", ports.apiserver);
        let access = Access::new(&server, &pki, &dir, assets).await?;
        access.write_kubeconfig("controller-manager", &Identity::Certificate(&pki.controller_manager))?;

        let apiserver = components::apiserver(assets, ports, builder.audit).args(&builder.apiserver_flags);
        let apiserver = Process::spawn(supervisor.clone(), apiserver).await?;

        for crds in &builder.crds {
            access.install_crds(crds).await?;
        }

        let manager = components::controller_manager(assets, ports).args(&builder.controller_manager_flags);
        let controller_manager = Process::spawn(supervisor.clone(), manager).await?;

        let etcd_url = format!("http://127.0.0.1:{}", ports.etcd);
        let cp = Self {
            access,
            etcd,
            apiserver,
            controller_manager,
            supervisor,
            etcd_url,
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(cp.client(), "default");
        eventually("the default service account exists", PATIENCE, || async {
            Ok(accounts.get("default").await?)
        })
        .await
        .with_context(|| cp.controller_manager.log_tail(25))?;
        if builder.keep != Keep::Nothing {
            cp.tell_what_is_kept();
        }
        Ok(cp)
    }

    /// etcd, to be paused or restarted.
    pub fn etcd(&self) -> &Process {
        &self.etcd
    }

    /// kube-apiserver, to be paused or restarted: same data, same port, same certificates.
    pub fn apiserver(&self) -> &Process {
        &self.apiserver
    }

    /// kube-controller-manager, to be stopped and started.
    pub fn controller_manager(&self) -> &Process {
        &self.controller_manager
    }

    /// Starts a further process beside the components and waits until it is up. It ends
    /// with the control plane, or when its handle is dropped.
    ///
    /// # Errors
    /// If it does not start or is not up in time; with the tail of its log.
    pub async fn spawn(&self, spec: ProcessSpec) -> anyhow::Result<Process> {
        Process::spawn(Arc::clone(&self.supervisor), spec).await
    }

    /// The control plane's directory, for files that should be gone with it.
    pub fn dir(&self) -> &Path {
        self.supervisor.dir()
    }

    /// Where the logs of all its processes are, and the audit log.
    pub fn log_dir(&self) -> std::path::PathBuf {
        self.dir().join("log")
    }

    /// What the API server was asked, by whom, and which webhooks it asked.
    pub fn audit(&self) -> Audit {
        Audit::new(self.log_dir().join("audit.log"))
    }

    /// Where etcd answers its clients.
    pub fn etcd_url(&self) -> &str {
        &self.etcd_url
    }

    /// Restarts the API server with a certificate of another CA, which is returned, PEM. Clients that were made before do not trust it.
    ///
    /// # Errors
    /// If it does not start again.
    pub async fn replace_serving_ca(&self) -> anyhow::Result<String> {
        let ca = pki::replace_serving_ca(&self.dir().join("pki"))?;
        self.apiserver().restart().await?;
        Ok(ca)
    }

    /// Ends it and waits until nothing is left; dropping it does the same.
    pub fn stop(self) {
        drop(self);
    }

    #[expect(clippy::print_stderr, reason = "for the person who set TASKGATE_E2E_KEEP")]
    fn tell_what_is_kept(&self) {
        eprintln!("control plane kept: logs in {}", self.log_dir().display());
        if self.supervisor.keep() == Keep::Everything {
            eprintln!("  look around:  export KUBECONFIG={}", self.kubeconfig().display());
            eprintln!("  end it:       kill {}", self.supervisor.pid());
        }
    }
}

impl Deref for ControlPlane {
    type Target = Access;

    fn deref(&self) -> &Access {
        &self.access
    }
}

impl Drop for ControlPlane {
    #[expect(clippy::print_stderr, reason = "libtest shows it with the test that failed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            for process in [&self.apiserver, &self.controller_manager] {
                eprintln!("the end of {}'s log:\n{}", process.name(), process.log_tail(15));
            }
        }
        self.supervisor.stop();
    }
}

/// All three say it with these words.
fn port_was_taken(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("address already in use")
}
