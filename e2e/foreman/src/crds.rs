//! The CRDs, and how a test or the tour installs them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use std::time::Duration;

/// The CRDs as YAML documents.
pub const CRDS: &str = concat!(
    include_str!("../crds/workload.yaml"),
    "---\n",
    include_str!("../crds/agentictask.yaml"),
    "---\n",
    include_str!("../crds/agent.yaml"),
);

const FILES: [(&str, &str); 3] = [
    ("workload.yaml", include_str!("../crds/workload.yaml")),
    ("agentictask.yaml", include_str!("../crds/agentictask.yaml")),
    ("agent.yaml", include_str!("../crds/agent.yaml")),
];

/// How long a new CRD may take until it is served.
const ESTABLISH: Duration = Duration::from_secs(30);

/// Applies the CRDs (server-side, so twice is harmless) and waits until all are served.
///
/// # Errors
/// When a file is malformed, or the API server refuses one or does not serve it in time.
pub async fn install(client: &Client) -> anyhow::Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut names = Vec::new();
    for crd in crds()? {
        let params = PatchParams::apply("foreman-standin").force();
        api.patch(&crd.name_any(), &params, &Patch::Apply(&crd)).await?;
        names.push(crd.name_any());
    }
    for name in names {
        let established = kube::runtime::conditions::is_crd_established();
        let wait = kube::runtime::wait::await_condition(api.clone(), &name, established);
        tokio::time::timeout(ESTABLISH, wait).await??;
    }
    Ok(())
}

fn crds() -> anyhow::Result<Vec<CustomResourceDefinition>> {
    let read = |(file, text)| serde_saphyr::from_str(text).map_err(|error| anyhow::anyhow!("reading {file}: {error}"));
    FILES.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::crds;

    #[test]
    fn every_file_is_a_crd_of_the_one_version_there_is() {
        for crd in crds().expect("files are well formed") {
            let versions: Vec<_> = crd.spec.versions.iter().map(|v| v.name.as_str()).collect();
            assert_eq!(versions, ["v1alpha1"], "{:?}", crd.metadata.name);
        }
    }
}
