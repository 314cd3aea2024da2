//! Creates `WorkItem`s, as many as a namespace may have: a user who invents new items without end must not fill the API server's
//! storage.

use std::time::Duration;

use kube::{ResourceExt as _, api::PostParams};
use taskgate_api::WorkItem;
use tracing::warn;

use super::{BreakerReconciler, events};
use crate::{
    error::{Error, is_absent, is_conflict, is_namespace_terminating},
    work_items::{self, WorkItemResult, is_tripped, transition_of},
};

/// How long a create waits at most until the cache shows it.
const UNTIL_CACHED: Duration = Duration::from_secs(1);

impl BreakerReconciler {
    /// Creates `item` in `namespace`, and deletes another one first where the limit is reached; never for an item that cannot be
    /// created yet. Then waits until the cache has it, so that the next reconcile does not create it again. `Changed`: the item
    /// exists, and is this.
    pub(crate) async fn create(&self, namespace: &str, item: &WorkItem) -> Result<WorkItemResult, Error> {
        let (api, name) = (self.context.work_items(namespace), item.name_any());
        if self.counts.of(namespace) >= self.work_items_per_namespace {
            if let Some(result) = self.existing(namespace, &name).await? {
                return Ok(result);
            }
            self.evict_one(namespace).await?;
        }
        match api.create(&PostParams::default(), item).await {
            Ok(item) => {
                let work_items = self.context.cache.work_items();
                work_items.wait_for(namespace, &name, UNTIL_CACHED).await;
                Ok(WorkItemResult::Changed(Box::new(item)))
            }
            Err(error) if is_conflict(&error) => {
                let existing = self.existing(namespace, &name).await?;
                Ok(existing.unwrap_or(WorkItemResult::Conflict))
            }
            Err(error) if is_absent(&error) || is_namespace_terminating(&error) => {
                Ok(WorkItemResult::NamespaceTerminating)
            }
            Err(error) => Err(Error::new("creating", "WorkItem", namespace, &name, error)),
        }
    }

    /// The result of a create where a `WorkItem` of this name exists.
    async fn existing(&self, namespace: &str, name: &str) -> Result<Option<WorkItemResult>, Error> {
        let found = work_items::find(&self.context, &(namespace.to_owned(), name.to_owned())).await?;
        Ok(found.map(|found| match found.metadata.deletion_timestamp {
            Some(_) => WorkItemResult::Terminating,
            None => WorkItemResult::Changed(Box::new(found)),
        }))
    }

    /// Deletes one of the `WorkItem`s of the namespace: the closed one without Tasks whose last failure is the longest ago. A tripped one
    /// is deleted only when there is no other, with an Event and a metric.
    async fn evict_one(&self, namespace: &str) -> Result<(), Error> {
        let items = self.context.cache.work_items().in_namespace(namespace);
        let mut items: Vec<_> = items.iter().map(|item| item.expand()).collect();
        // While an object is replaced, its WorkItem is all that is left of it.
        items.retain(|item| transition_of(item).is_none());
        let in_use = |item: &WorkItem| {
            let key = (namespace.to_owned(), item.name_any());
            self.context.has_tasks(&key) || (self.is_retried)(&key)
        };
        let Some(victim) = items
            .iter()
            .min_by_key(|item| (is_tripped(item), in_use(item), last_failure(item)))
        else {
            return Ok(());
        };
        if is_tripped(victim) {
            warn!(
                namespace,
                name = victim.name_any(),
                "deleting the WorkItem of a tripped item: the namespace has too many WorkItems"
            );
            self.metrics.evicted_tripped();
            events::evicted(&self.context, victim);
        }
        work_items::delete(&self.context, victim, "evicting").await?;
        Ok(())
    }
}

fn last_failure(item: &WorkItem) -> Option<jiff::Timestamp> {
    let time = item.status.as_ref()?.last_failure_time.as_ref()?;
    Some(time.0)
}
