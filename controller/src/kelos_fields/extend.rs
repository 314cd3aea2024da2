//! Extends the CustomResourceDefinitions of Kelos, and again after each upgrade of Kelos.

use std::{collections::BTreeSet, future::pending, time::Duration};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use taskgate_cache::ClusterCache;
use taskgate_policy::kelos_fields::{FieldState, extension};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::kubernetes::{json_of, settled};

/// Until a failed step is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Adds the fields to each CustomResourceDefinition that lacks some, while the setting is there. Never ends.
///
/// RBAC: `get` and `patch` on both CustomResourceDefinitions by name.
pub(crate) async fn keep_extended(client: &Client, cache: &ClusterCache) {
    let kind = ApiResource::erase::<CustomResourceDefinition>(&());
    let crds = Api::<DynamicObject>::all_with(client.clone(), &kind);
    let mut schemas = cache.kelos_schemas();
    let mut reported = BTreeSet::new();
    loop {
        let known = schemas.borrow_and_update().clone();
        let mut failed = false;
        if known.enabled {
            let kept: BTreeSet<_> = known
                .fields()
                .filter(|(_, found)| matches!(found.state, FieldState::DefinedByKelos | FieldState::NotPossible))
                .map(|(crd, found)| (crd.to_owned(), found.version.clone(), found.field.dotted(), found.state))
                .collect();
            for (crd, version, field, state) in kept.difference(&reported) {
                warn!(crd, version, field, %state, "a field is not added to Kelos' schema");
            }
            reported = kept;
            for name in known.incomplete() {
                failed |= extend(&crds, name).await.is_err();
            }
        }
        tokio::select! {
            changed = schemas.changed() => if changed.is_err() {
                return pending().await;
            },
            () = sleep(RETRY), if failed => {}
        }
    }
}

async fn extend(crds: &Api<DynamicObject>, name: &str) -> kube::Result<()> {
    let extended = async {
        let Some(crd) = crds.get_opt(name).await? else {
            return Ok(());
        };
        let patch = extension(&json_of(&crd));
        if patch.0.is_empty() {
            return Ok(());
        }
        let written = crds
            .patch(name, &PatchParams::default(), &Patch::<()>::Json(patch))
            .await;
        if settled(written)?.is_some() {
            info!(crd = name, "extended the schema of Kelos");
        }
        Ok(())
    };
    let result: kube::Result<()> = extended.await;
    result.inspect_err(|error| warn!(%error, crd = name, "the schema of Kelos cannot be extended; tried again soon"))
}
