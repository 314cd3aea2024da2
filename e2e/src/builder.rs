//! How a control plane is ordered, when the plain one does not do.

use crate::crossing::{Crossing, EGRESS_FILE};
use crate::plane::ControlPlane;

/// What is left of a control plane when its test has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// No process, no directory.
    #[default]
    Nothing,
    /// The folder with the logs.
    Logs,
    /// All of it, running, until its supervisor is told to end.
    Everything,
}

impl Keep {
    /// What `TASKGATE_E2E_KEEP` says: `logs`, or `1` for everything.
    pub fn from_env() -> Self {
        match std::env::var("TASKGATE_E2E_KEEP").as_deref() {
            Ok("logs") => Self::Logs,
            Ok("" | "0") | Err(_) => Self::Nothing,
            Ok(_) => Self::Everything,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Logs => "logs",
            Self::Everything => "all",
        }
    }
}

/// Options of a [`ControlPlane`]; see [`ControlPlane::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    pub(crate) audit: bool,
    pub(crate) apiserver_flags: Vec<String>,
    pub(crate) controller_manager_flags: Vec<String>,
    pub(crate) crds: Vec<String>,
    pub(crate) files: Vec<(String, String)>,
    pub(crate) keep: Keep,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            audit: true,
            apiserver_flags: Vec::new(),
            controller_manager_flags: Vec::new(),
            crds: Vec::new(),
            files: Vec::new(),
            keep: Keep::from_env(),
        }
    }
}

impl Builder {
    /// Audit log on or off; on if not told.
    pub fn audit(mut self, on: bool) -> Self {
        self.audit = on;
        self
    }

    /// A further flag of kube-apiserver; a flag given twice is the later one.
    pub fn apiserver_flag(mut self, flag: impl Into<String>) -> Self {
        self.apiserver_flags.push(flag.into());
        self
    }

    /// A further flag of kube-controller-manager.
    pub fn controller_manager_flag(mut self, flag: impl Into<String>) -> Self {
        self.controller_manager_flags.push(flag.into());
        self
    }

    /// Custom resources that are there before the controller manager is, so that its
    /// garbage collector knows them from the start: it learns of later ones only every
    /// 30 s. See [`Access::install_crds`](crate::Access::install_crds).
    pub fn crds(mut self, yaml: impl Into<String>) -> Self {
        self.crds.push(yaml.into());
        self
    }

    /// A file for a component to read, by its name alone: they run in the control plane's directory.
    pub fn file(mut self, name: impl Into<String>, content: impl Into<String>) -> Self {
        self.files.push((name.into(), content.into()));
        self
    }

    /// Lets the API server reach Services through `crossing`.
    pub fn crossing(self, crossing: &Crossing) -> Self {
        self.file(EGRESS_FILE, crossing.configuration())
            .apiserver_flag(format!("--egress-selector-config-file={EGRESS_FILE}"))
    }

    /// What is left when the test has ended; [`Keep::from_env`] if not told.
    pub fn keep(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub async fn start(self) -> anyhow::Result<ControlPlane> {
        ControlPlane::start_as(&self).await
    }
}
