//! Which items policies need from their issue sources, from the caches.

use kube::ResourceExt as _;
use taskgate_api::kelos::Task;
use taskgate_policy::{
    PolicyScope, PolicySet, TaskState,
    source::{Interests, add_task, add_work_item},
};

use crate::{context::Context, kubernetes::json_of};

/// The items that policies need. No cache is read where no policy needs any.
pub(super) fn interests(context: &Context) -> Interests {
    let mut interests = Interests::new();
    let policies = context.policies();
    if !policies.follows_sources() {
        return interests;
    }
    for task in context.cache.tasks().all() {
        let object = json_of(&*task);
        let (Some(state), Some(namespace)) = (TaskState::of(&object), task.namespace()) else {
            continue;
        };
        let item = state
            .work_item
            .clone()
            .and_then(|name| context.cached_work_item(&(namespace.clone(), name)));
        let status = item.as_ref().and_then(|item| item.status.as_ref());
        with_scope(context, &policies, &namespace, Task::of(&object).spawner(), |scope| {
            add_task(&mut interests, scope, &object, &state, status);
        });
    }
    for item in context.cache.work_items().all() {
        let (namespace, name) = (item.namespace(), item.name());
        if context.task_index.has(&(namespace.to_owned(), name.to_owned())) {
            continue;
        }
        with_scope(context, &policies, namespace, item.spawner(), |scope| {
            add_work_item(&mut interests, scope, name, &item.expand());
        });
    }
    interests
}

/// Calls `add` with the policies that can apply to an object of this namespace and spawner.
fn with_scope(
    context: &Context,
    policies: &PolicySet,
    namespace: &str,
    spawner: Option<&str>,
    add: impl FnOnce(&PolicyScope<'_, '_>),
) {
    let spawner = spawner.and_then(|name| context.spawner(namespace, name));
    let labels = context.namespace_labels(namespace);
    add(&PolicyScope::new(policies, namespace, &labels, spawner.as_deref()));
}
