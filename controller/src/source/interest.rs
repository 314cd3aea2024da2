//! Which items policies need from their issue sources, from the caches.

use kube::{ResourceExt as _, api::DynamicObject, runtime::reflector::Store};
use taskgate_api::kelos::Task;
use taskgate_policy::{
    PolicySet, TaskState,
    source::{Interests, Known, add_memory, add_task},
};

use crate::{context::Context, kubernetes::json_of};

/// The items that policies need. No cache is read where no policy needs any.
pub(super) fn interests(context: &Context, tasks: &Store<DynamicObject>) -> Interests {
    let mut interests = Interests::new();
    let policies = context.policies.current();
    if !policies.follows_sources() {
        return interests;
    }
    for task in tasks.state() {
        let object = json_of(&*task);
        let (Some(state), Some(namespace)) = (TaskState::of(&object), task.namespace()) else {
            continue;
        };
        let item = state
            .work_item
            .clone()
            .and_then(|name| context.cached_work_item(&(namespace.clone(), name)));
        let status = item.as_ref().and_then(|item| item.status.as_ref());
        with_known(context, &policies, &namespace, Task::of(&object).spawner(), |known| {
            add_task(&mut interests, known, &object, &state, status);
        });
    }
    for item in context.work_items.state() {
        let (namespace, name) = (item.namespace().unwrap_or_default(), item.name_any());
        if context.task_index.has(&(namespace.clone(), name.clone())) {
            continue;
        }
        with_known(context, &policies, &namespace, item.spec.spawner.as_deref(), |known| {
            add_memory(&mut interests, known, &name, &item);
        });
    }
    interests
}

/// Calls `add` with the inputs of a decision about an object of this namespace and spawner.
fn with_known(
    context: &Context,
    policies: &PolicySet,
    namespace: &str,
    spawner: Option<&str>,
    add: impl FnOnce(&Known<'_>),
) {
    let spawner = spawner.and_then(|name| context.policies.spawner(namespace, name));
    add(&Known {
        policies,
        namespace,
        namespace_labels: &context.policies.namespace_labels(namespace),
        spawner: spawner.as_ref(),
    });
}
