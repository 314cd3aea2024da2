//! Who interests somebody at the moment, from the caches.

use kube::{
    ResourceExt as _,
    api::DynamicObject,
    runtime::reflector::{ObjectRef, Store},
};
use taskgate_api::kelos::Task;
use taskgate_policy::{
    PolicyScope, TaskState,
    source::{Interests, add_task, add_work_item},
};

use crate::{context::Context, tasks::json_of};

/// Everything that policies wait for. Nothing is looked at where none of them does.
pub(super) fn interests(context: &Context, tasks: &Store<DynamicObject>) -> Interests {
    let mut interests = Interests::new();
    let policies = context.policies.current();
    if !policies.follows_sources() {
        return interests;
    }
    for task in tasks.state() {
        let object = json_of(&task);
        let (Some(state), Some(namespace)) = (TaskState::of(&object), task.namespace()) else {
            continue;
        };
        let memory = state.work_item.as_deref().and_then(|name| {
            let key = ObjectRef::new(name).within(&namespace);
            context.work_items.get(&key)
        });
        let spawner = Task::of(&object).spawner();
        let spawner = spawner.and_then(|name| context.policies.spawner(&namespace, name));
        let scope = PolicyScope {
            policies: &policies,
            namespace: &namespace,
            namespace_labels: &context.policies.namespace_labels(&namespace),
            spawner: spawner.as_ref(),
        };
        let memory = memory.as_ref().and_then(|item| item.status.as_ref());
        add_task(&mut interests, &scope, &object, &state, memory);
    }
    for item in context.work_items.state() {
        let (namespace, name) = (item.namespace().unwrap_or_default(), item.name_any());
        if context.index.has(&(namespace.clone(), name.clone())) {
            continue;
        }
        let spawner = item.spec.spawner.as_deref();
        let spawner = spawner.and_then(|name| context.policies.spawner(&namespace, name));
        let scope = PolicyScope {
            policies: &policies,
            namespace: &namespace,
            namespace_labels: &context.policies.namespace_labels(&namespace),
            spawner: spawner.as_ref(),
        };
        add_work_item(&mut interests, &scope, &name, &item);
    }
    interests
}
