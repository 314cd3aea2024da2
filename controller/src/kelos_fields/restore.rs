//! Restores the fields of a TaskSpawner from their copy, and the copy from the fields, after a write that admission did not see.

use std::{collections::BTreeSet, future::pending, time::Duration};

use kube::api::{DynamicObject, Patch, PatchParams};
use taskgate_api::kelos_fields::KelosFields;
use taskgate_cache::{CachedSpawner, NamespacedName, ObjectChange};
use taskgate_policy::kelos_fields::sync;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::{
    context::Context,
    kubernetes::{json_of, settled},
};

/// Until TaskSpawners whose fields still differ are read again: the API server takes a moment to serve a changed schema.
const RETRY: Duration = Duration::from_secs(2);

/// Keeps the fields of all TaskSpawners and their copies equal. Never ends.
///
/// RBAC: `get` and `patch` on taskspawners.
pub(crate) async fn restore_fields(context: &Context) {
    context.ready().await;
    let mut spawners = context.cache.spawners().subscribe();
    let mut schemas = context.cache.kelos_schemas();
    let mut differing = BTreeSet::new();
    loop {
        tokio::select! {
            changes = spawners.next() => match changes {
                Some(changes) => note(&mut differing, changes),
                None => return pending().await,
            },
            changed = schemas.changed() => if changed.is_err() {
                return pending().await;
            },
            () = sleep(RETRY), if !differing.is_empty() => {}
        }
        let fields = schemas.borrow_and_update().added.clone();
        if fields.is_empty() {
            continue;
        }
        for key in differing.clone() {
            if context.is_excluded(&key.namespace) || restore(context, &key, &fields).await {
                differing.remove(&key);
            }
        }
    }
}

/// Notes the TaskSpawners whose fields differ from the copy, as far as the cache shows it.
fn note(differing: &mut BTreeSet<NamespacedName>, changes: Vec<ObjectChange<CachedSpawner>>) {
    for change in changes {
        if change.new.is_some_and(|spawner| spawner.fields_differ) {
            differing.insert(change.key);
        } else {
            differing.remove(&change.key);
        }
    }
}

/// Whether nothing is left to do for this TaskSpawner.
async fn restore(context: &Context, key: &NamespacedName, fields: &KelosFields) -> bool {
    let NamespacedName { namespace, name } = key;
    let api = context.spawners(namespace);
    let restored = async {
        let Some(spawner): Option<DynamicObject> = api.get_opt(name).await? else {
            return Ok(true);
        };
        let patch = sync(&json_of(&spawner), fields);
        if patch.0.is_empty() || spawner.metadata.deletion_timestamp.is_some() {
            return Ok(true);
        }
        let written = api
            .patch(name, &PatchParams::default(), &Patch::<()>::Json(patch))
            .await;
        let Some(written) = settled(written)? else {
            return Ok(false);
        };
        let is_equal = sync(&json_of(&written), fields).0.is_empty();
        if is_equal {
            info!(namespace, name, "restored the fields of a TaskSpawner, or their copy");
        }
        Ok(is_equal)
    };
    let result: kube::Result<bool> = restored.await;
    result.unwrap_or_else(|error| {
        warn!(%error, namespace, name, "the fields of a TaskSpawner cannot be restored; tried again soon");
        false
    })
}
