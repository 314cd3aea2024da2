//! Custom resources, usable when the call returns.

use anyhow::{Context as _, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt, api::DynamicObject};

use crate::access::Access;
use crate::wait::{PATIENCE, await_object, eventually};

impl Access {
    /// Applies CRDs (among anything else) and waits until every CRD among them is served.
    ///
    /// The garbage collector learns of new kinds every 30 s; restart the controller manager
    /// if a scenario cannot wait, or name them in [`Builder::crds`](crate::Builder::crds).
    ///
    /// # Errors
    /// If the server refuses one of them or does not serve it in time.
    pub async fn install_crds(&self, yaml: &str) -> anyhow::Result<()> {
        let applied = self.apply_into(None, yaml).await?;
        let is_crd = |object: &&DynamicObject| {
            let types = object.types.as_ref();
            types.is_some_and(|types| types.kind == "CustomResourceDefinition")
        };
        let crds: Vec<_> = applied.iter().filter(is_crd).map(ResourceExt::name_any).collect();
        ensure!(!crds.is_empty(), "no CRD among what was applied");
        for crd in crds {
            self.await_crd_established(&crd).await?;
        }
        Ok(())
    }

    /// Waits until a CRD (`tasks.kelos.dev`) is established and each of its versions is
    /// served: handlers follow the condition a moment later.
    ///
    /// # Errors
    /// If that takes longer than [`PATIENCE`].
    pub async fn await_crd_established(&self, name: &str) -> anyhow::Result<()> {
        let crds: Api<CustomResourceDefinition> = Api::all(self.client());
        let crd = await_object(&crds, name, "is established", |crd| {
            let conditions = crd.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Established" && c.status == "True"))
        })
        .await?;
        let spec = crd.spec;
        for version in spec.versions.iter().filter(|version| version.served) {
            let path = format!("/apis/{}/{}/{}?limit=1", spec.group, version.name, spec.names.plural);
            eventually(format!("{path} is served"), PATIENCE, || async {
                self.get_raw(&path).await.context(name.to_owned())
            })
            .await?;
        }
        Ok(())
    }
}
