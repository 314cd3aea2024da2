//! The CRDs, and how a test or the tour installs them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use std::time::Duration;

/// The CRDs of [`CrdCapability::Base`] as YAML documents.
pub const CRDS: &str = concat!(
    include_str!("../crds/task.yaml"),
    "---\n",
    include_str!("../crds/taskspawner.yaml"),
    "---\n",
    include_str!("../crds/workspace.yaml"),
    "---\n",
    include_str!("../crds/workerpool.yaml"),
    "---\n",
    include_str!("../crds/taskrecord.yaml"),
);

const FILES: [(&str, &str); 5] = [
    ("task.yaml", include_str!("../crds/task.yaml")),
    ("taskspawner.yaml", include_str!("../crds/taskspawner.yaml")),
    ("workspace.yaml", include_str!("../crds/workspace.yaml")),
    ("workerpool.yaml", include_str!("../crds/workerpool.yaml")),
    ("taskrecord.yaml", include_str!("../crds/taskrecord.yaml")),
];

/// How long a new CRD may take until it is served.
const ESTABLISH: Duration = Duration::from_secs(30);

/// What the installed CRDs can express.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CrdCapability {
    /// Kelos as it is.
    #[default]
    Base,
    /// Those of a Kelos that has adopted the proposals on cancellation and queues: `status.cancelledBy`, an enum of
    /// phases with `Cancelled`, `spec.queueName`.
    Cancellation,
}

impl CrdCapability {
    /// The phases that end a Task: two today (kelos §6.2), `Cancelled` with the proposal on cancellation.
    pub fn is_terminal(self, phase: &str) -> bool {
        matches!(phase, "Succeeded" | "Failed") || (self == Self::Cancellation && phase == CANCELLED)
    }
}

/// The phase that the proposal on cancellation adds.
pub const CANCELLED: &str = "Cancelled";

/// Why the CRDs could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file in `crds/` is not a CRD.
    #[error("reading {file}: {source}")]
    Read {
        /// The file.
        file: &'static str,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The API server refused one.
    #[error("applying CRD {name}: {source}")]
    Apply {
        /// The CRD.
        name: String,
        /// The answer.
        source: kube::Error,
    },
    /// The API server does not serve one.
    #[error("CRD {name} is not established after {} s", ESTABLISH.as_secs())]
    Establish {
        /// The CRD.
        name: String,
    },
}

/// Kelos' CRDs.
///
/// # Errors
/// [`Error::Read`] when a file in `crds/` is malformed.
pub fn crds(capability: CrdCapability) -> Result<Vec<CustomResourceDefinition>, Error> {
    FILES
        .into_iter()
        .map(|(file, text)| {
            let read = |source| Error::Read { file, source };
            let mut crd: Value = serde_saphyr::from_str(text).map_err(|error| read(Box::new(error)))?;
            if capability == CrdCapability::Cancellation && file == "task.yaml" {
                adopt_001(&mut crd);
            }
            serde_json::from_value(crd).map_err(|error| read(Box::new(error)))
        })
        .collect()
}

fn adopt_001(crd: &mut Value) {
    for version in crd["spec"]["versions"].as_array_mut().into_iter().flatten() {
        let properties = &mut version["schema"]["openAPIV3Schema"]["properties"];
        properties["spec"]["properties"]["queueName"] = json!({"type": "string"});
        let status = &mut properties["status"]["properties"];
        status["cancelledBy"] = json!({"type": "string"});
        status["phase"]["enum"] = json!(["", "Pending", "Running", "Waiting", "Succeeded", "Failed", "Cancelled"]);
    }
}

/// Kelos' CRDs as YAML documents, for `kubectl` and the harness.
///
/// # Errors
/// [`Error::Read`] when a file in `crds/` is malformed.
pub fn yaml(capability: CrdCapability) -> Result<String, Error> {
    let mut documents = Vec::new();
    for crd in crds(capability)? {
        // JSON is YAML.
        let document = serde_json::to_string(&crd).map_err(|error| Error::Read {
            file: "a CRD",
            source: Box::new(error),
        })?;
        documents.push(document);
    }
    Ok(documents.join("\n---\n"))
}

/// Applies the CRDs (server-side, so twice is harmless) and waits until all are served.
///
/// # Errors
/// The first [`Error`] met.
pub async fn install(client: &Client, capability: CrdCapability) -> Result<(), Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crds = crds(capability)?;
    for crd in &crds {
        let params = PatchParams::apply("kelos-standin").force();
        let name = crd.name_any();
        if let Err(source) = api.patch(&name, &params, &Patch::Apply(crd)).await {
            return Err(Error::Apply { name, source });
        }
    }
    for crd in &crds {
        let name = crd.name_any();
        let established = kube::runtime::conditions::is_crd_established();
        let wait = kube::runtime::wait::await_condition(api.clone(), &name, established);
        match tokio::time::timeout(ESTABLISH, wait).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return Err(Error::Establish { name }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{CrdCapability, crds};

    #[test]
    fn every_file_is_a_crd_with_one_storage_version() {
        for capability in [CrdCapability::Base, CrdCapability::Cancellation] {
            for crd in crds(capability).expect("files are well formed") {
                let stored = crd.spec.versions.iter().filter(|v| v.storage);
                let stored: Vec<_> = stored.map(|v| v.name.as_str()).collect();
                assert_eq!(stored, ["v1alpha2"], "{:?}", crd.metadata.name);
            }
        }
    }

    #[test]
    fn only_the_capability_cancellation_has_cancelled() {
        let text = |capability| serde_json::to_string(&crds(capability).expect("files are well formed"));
        let head = text(CrdCapability::Base).expect("CRDs serialise");
        let adopted = text(CrdCapability::Cancellation).expect("CRDs serialise");
        for field in ["cancelledBy", "Cancelled", "queueName"] {
            assert!(!head.contains(field), "{field}");
            assert!(adopted.contains(field), "{field}");
        }
    }
}
