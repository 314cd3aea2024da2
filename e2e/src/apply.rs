//! Server-side apply, as kubectl does it but without a process for each: kubectl reads the API server's whole OpenAPI to learn
//! whether it checks fields, which costs more than what is applied.

use anyhow::{Context as _, ensure};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, ResourceExt as _, core::GroupVersionKind};
use serde_json::Value;

use crate::access::Access;

/// Who applies.
const MANAGER: &str = "taskgate-e2e";

impl Access {
    /// Server-side apply of any number of documents, one after the other, as field manager `taskgate-e2e`. Unknown fields
    /// are refused.
    ///
    /// # Errors
    /// If one of them cannot be read, or the server refuses it.
    pub async fn apply_yaml(&self, yaml: &str) -> anyhow::Result<()> {
        self.apply_into(None, yaml).await.map(drop)
    }

    /// The same. Documents that live in a namespace and name none land in `namespace`. Returns what is there now.
    pub(crate) async fn apply_into(&self, namespace: Option<&str>, yaml: &str) -> anyhow::Result<Vec<DynamicObject>> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).context("what is to be applied")?;
        let mut applied = Vec::new();
        for document in documents.into_iter().filter(|document| !document.is_null()) {
            applied.push(self.apply(namespace, document).await?);
        }
        ensure!(!applied.is_empty(), "nothing to apply");
        Ok(applied)
    }

    async fn apply(&self, namespace: Option<&str>, document: Value) -> anyhow::Result<DynamicObject> {
        let object: DynamicObject = serde_json::from_value(document).context("no object")?;
        let name = object.name_any();
        let types = object.types.as_ref().with_context(|| format!("{name} has no kind"))?;
        let kind = GroupVersionKind::try_from(types)?;
        let what = format!("{} {name}", kind.kind);
        let (resource, capabilities) = pinned_kind(&self.client(), &kind).await.context(what.clone())?;
        let api: Api<DynamicObject> = match capabilities.scope {
            Scope::Cluster => Api::all_with(self.client(), &resource),
            Scope::Namespaced => {
                let own = object.namespace();
                let namespace = own.as_deref().or(namespace).unwrap_or("default");
                Api::namespaced_with(self.client(), namespace, &resource)
            }
        };
        let params = PatchParams::apply(MANAGER).force().validation_strict();
        let applied = api.patch(&name, &params, &Patch::Apply(&object)).await;
        applied.with_context(|| format!("applying {what}"))
    }
}
