//! Helm, as users have it.

use std::ffi::OsStr;

use tokio::process::Command;

use crate::assets::tool;
use crate::kubectl::run;
use crate::{ControlPlane, Output};

impl ControlPlane {
    /// Runs Helm as the admin.
    ///
    /// # Errors
    /// If it cannot be run; that it fails is in the [`Output`].
    pub async fn helm<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> anyhow::Result<Output> {
        let own = self.dir().join("helm");
        let mut helm = Command::new(tool("helm").await?);
        helm.args(args)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HELM_CACHE_HOME", &own)
            .env("HELM_CONFIG_HOME", &own)
            .env("HELM_DATA_HOME", &own);
        run(&mut helm).await
    }
}
