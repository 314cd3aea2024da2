//! A cached Task as kube's work queue takes it: the same object as in the cluster cache, and cheap to clone.

use std::{borrow::Cow, sync::Arc};

use kube::{
    Resource,
    api::{DynamicObject, ObjectMeta},
    core::NamespaceResourceScope,
};
use taskgate_api::kelos;

/// A Task of the cluster cache.
#[derive(Clone, Debug)]
pub(crate) struct QueuedTask(pub(crate) Arc<DynamicObject>);

impl Resource for QueuedTask {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Task".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        kelos::GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        kelos::TASK_VERSIONS[0].into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        kelos::TASKS.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.0.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut Arc::make_mut(&mut self.0).metadata
    }
}
