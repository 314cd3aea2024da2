//! `taskgate version`: the version of this binary, of the taskgate that is installed, and of Kubernetes.

use std::fmt::Write as _;

use anyhow::Result;
use clap::Args;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, ResourceExt as _};
use serde::Serialize;

use crate::{
    cluster::{api_error, with_label},
    exit::ExitStatus,
    flags::ClusterArgs,
    output::{OutputFormat, print},
};

/// Flags of `taskgate version`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  taskgate version --client
  taskgate version -o json")]
pub(crate) struct VersionArgs {
    /// Only the version of this binary; no cluster is read.
    #[arg(long)]
    pub(crate) client: bool,
    /// The form of the result.
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t)]
    pub(crate) output: OutputFormat,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

/// The versions.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kubernetes: Option<String>,
    /// A Deployment of taskgate each.
    #[serde(skip_serializing_if = "Option::is_none")]
    servers: Option<Vec<Server>>,
}

/// A Deployment of taskgate.
#[derive(Debug, Serialize)]
struct Server {
    namespace: String,
    /// The images of its containers.
    images: Vec<String>,
}

/// RBAC: `list` on deployments. Nothing with `--client`.
pub(crate) async fn run(args: VersionArgs) -> Result<ExitStatus> {
    let mut versions = Versions {
        client: env!("CARGO_PKG_VERSION"),
        kubernetes: None,
        servers: None,
    };
    if !args.client {
        let connection = args.cluster.connect(false).await?;
        let kubernetes = connection.client.apiserver_version().await.map_err(api_error)?;
        versions.kubernetes = Some(kubernetes.git_version);
        let deployments = Api::<Deployment>::all(connection.client).list(&with_label()).await;
        versions.servers = Some(deployments.map_err(api_error)?.iter().map(server).collect());
    }
    print(&args.output.render(&versions, || versions.text())?)?;
    Ok(ExitStatus::Success)
}

fn server(deployment: &Deployment) -> Server {
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let containers = pod.into_iter().flat_map(|pod| &pod.containers);
    Server {
        namespace: deployment.namespace().unwrap_or_default(),
        images: containers.filter_map(|container| container.image.clone()).collect(),
    }
}

impl Versions {
    fn text(&self) -> String {
        let mut text = format!("Client: {}\n", self.client);
        if let Some(servers) = &self.servers {
            for server in servers {
                let _ = writeln!(
                    text,
                    "Server: {} in namespace {}",
                    server.images.join(", "),
                    server.namespace
                );
            }
            if servers.is_empty() {
                text.push_str("Server: not installed\n");
            }
        }
        if let Some(kubernetes) = &self.kubernetes {
            let _ = writeln!(text, "Kubernetes: {kubernetes}");
        }
        text
    }
}
