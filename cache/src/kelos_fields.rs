//! Whether an administrator extends Kelos' kinds, and what their schemas have of the fields.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::ConfigMap, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, PartialObjectMeta},
};
use taskgate_api::kelos_fields::{CONFIG_MAP, CRDS, KelosField, KelosFields};
use taskgate_policy::kelos_fields::{FieldState, SchemaField, schema_fields};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    store::Store,
    watch::{fixed, follow},
};

/// The setting, and the fields in the schemas of Kelos.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KelosSchemas {
    /// Whether the setting is there.
    pub enabled: bool,
    /// The fields that are taskgate's: while the setting is there, all that no version of Kelos defines itself.
    pub ours: KelosFields,
    /// Those of them that all versions of the schema have: others would not be stored.
    pub added: KelosFields,
    /// What each CustomResourceDefinition has.
    crds: Vec<(&'static str, Arc<Vec<SchemaField>>)>,
}

impl KelosSchemas {
    fn new(enabled: bool, crds: Vec<(&'static str, Arc<Vec<SchemaField>>)>) -> Self {
        let states = |field: KelosField| {
            let found = crds.iter().flat_map(|(_, fields)| fields.iter());
            found.filter(move |found| found.field == field).map(|found| found.state)
        };
        let is_ours = |field: &KelosField| states(*field).all(|state| state != FieldState::DefinedByKelos);
        let ours: KelosFields = KelosField::all()
            .into_iter()
            .filter(|field| enabled && is_ours(field))
            .collect();
        let is_added = |field: &KelosField| {
            let is_added = |state| matches!(state, FieldState::Added | FieldState::Outdated);
            states(*field).next().is_some() && states(*field).all(is_added)
        };
        let added = ours.iter().copied().filter(is_added).collect();
        Self {
            enabled,
            ours,
            added,
            crds,
        }
    }

    /// What each version of each CustomResourceDefinition has.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, &SchemaField)> {
        let crds = self.crds.iter();
        crds.flat_map(|(name, fields)| fields.iter().map(|field| (*name, field)))
    }

    /// The CustomResourceDefinitions that lack fields, or have outdated ones.
    pub fn incomplete(&self) -> impl Iterator<Item = &'static str> {
        let lacks = |found: &SchemaField| matches!(found.state, FieldState::Missing | FieldState::Outdated);
        let crds = self.crds.iter().filter(move |(_, fields)| fields.iter().any(lacks));
        crds.map(|(name, _)| *name)
    }
}

/// The stores of the setting and of both CustomResourceDefinitions.
#[derive(Debug)]
pub(crate) struct KelosFieldStores {
    setting: Store<()>,
    crds: [(&'static str, Store<Vec<SchemaField>>); 2],
    schemas: watch::Sender<Arc<KelosSchemas>>,
}

impl KelosFieldStores {
    pub(crate) fn new() -> Self {
        let crd = |name| {
            let store = Store::new("customresourcedefinitions").selecting(format!("metadata.name={name}"));
            (name, store)
        };
        Self {
            setting: Store::new("configmaps").selecting(format!("metadata.name={CONFIG_MAP}")),
            crds: CRDS.map(crd),
            schemas: watch::Sender::default(),
        }
    }

    /// Follows the API server until `end`.
    ///
    /// RBAC: `list` and `watch` on the ConfigMap in `namespace` and on both CustomResourceDefinitions, by name.
    pub(crate) fn follow(
        self: &Arc<Self>,
        client: &Client,
        namespace: &str,
        end: &CancellationToken,
        watches: &mut JoinSet<()>,
    ) {
        let api = fixed(Api::<PartialObjectMeta<ConfigMap>>::namespaced(
            client.clone(),
            namespace,
        ));
        let (stores, shutdown) = (Arc::clone(self), end.clone());
        watches.spawn(async move {
            follow(api, &stores.setting, |_| Some(()), || stores.publish(), shutdown).await;
        });
        let kind = ApiResource::erase::<CustomResourceDefinition>(&());
        for index in 0..CRDS.len() {
            let api = fixed(Api::<DynamicObject>::all_with(client.clone(), &kind));
            let (stores, shutdown) = (Arc::clone(self), end.clone());
            watches.spawn(async move {
                let Some((_, store)) = stores.crds.get(index) else {
                    return;
                };
                let trim = |crd: DynamicObject| {
                    let crd = serde_json::to_value(crd).unwrap_or_default();
                    Some(schema_fields(&crd))
                };
                follow(api, store, trim, || stores.publish(), shutdown).await;
            });
        }
    }

    /// Publishes what the stores have; never lists again.
    fn publish(&self) -> bool {
        let known = self
            .crds
            .iter()
            .filter_map(|(name, store)| Some((*name, store.get("", name)?)));
        let enabled = !self.setting.all().is_empty();
        let now = Arc::new(KelosSchemas::new(enabled, known.collect()));
        self.schemas.send_if_modified(|before| {
            let is_new = *before != now;
            *before = now;
            is_new
        });
        false
    }

    pub(crate) fn schemas(&self) -> watch::Receiver<Arc<KelosSchemas>> {
        self.schemas.subscribe()
    }

    /// The kind that admission still waits for. Where the setting may not be read, nothing is extended.
    pub(crate) fn pending(&self) -> Option<&'static str> {
        self.setting.is_pending().then(|| self.setting.status().kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(field: KelosField, state: FieldState) -> SchemaField {
        SchemaField {
            version: "v1alpha2".to_owned(),
            field,
            state,
        }
    }

    #[test]
    fn a_field_of_kelos_is_not_ours_and_a_missing_one_is_not_added() {
        use KelosField::{CancellationPolicy, FailurePolicy, QueueName};
        let crd = vec![
            found(FailurePolicy, FieldState::DefinedByKelos),
            found(CancellationPolicy, FieldState::Missing),
            found(QueueName, FieldState::Added),
        ];
        let crds = || vec![(CRDS[0], Arc::new(crd.clone()))];
        let enabled = KelosSchemas::new(true, crds());
        assert!(!enabled.ours.contains(&FailurePolicy) && enabled.ours.contains(&CancellationPolicy));
        assert_eq!(enabled.added, [QueueName].into());
        assert_eq!(enabled.incomplete().collect::<Vec<_>>(), [CRDS[0]]);
        let disabled = KelosSchemas::new(false, crds());
        assert!(disabled.ours.is_empty() && disabled.added.is_empty());
    }
}
