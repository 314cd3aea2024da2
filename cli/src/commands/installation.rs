//! Which installation of taskgate a command is about.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use taskgate_webhook::{ConfigurationName, rules::CONFIGURATION};

use super::{Connection, ConnectionArgs};
use crate::args::{NAMESPACE, object_name};

/// Which cluster, and which taskgate of it.
#[derive(Args, Clone, Debug)]
pub(crate) struct InstallationArgs {
    /// The kubeconfig to use. Absent: $KUBECONFIG, else ~/.kube/config, else the pod's service account.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Absent: its current one.
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The namespace that taskgate runs in.
    #[arg(short, long, value_name = "NAME", default_value = NAMESPACE, value_parser = object_name)]
    pub(crate) namespace: String,
    /// The name of its webhook configurations.
    #[arg(long, value_name = "NAME", default_value = CONFIGURATION)]
    pub(crate) configuration: ConfigurationName,
}

impl InstallationArgs {
    /// Prepares the way to the cluster; its namespace is taskgate's.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let connection = ConnectionArgs {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            namespace: Some(self.namespace.clone()),
        };
        connection.connect().await
    }
}
