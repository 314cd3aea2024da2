//! The rights that a write needs because taskgate will act for its user: a user cannot have taskgate do what the user may not do.

use serde::Deserialize as _;
use serde_json::Value;
use taskgate_api::{
    foreman, kelos, keys,
    task_policy::{RetriedKind, RetryPolicy},
};

use super::retry_order;
use crate::decision::{Decision, Detail, Effect, Finding, Kind, Operation, Phase, Request, assemble};

/// A right, as a SubjectAccessReview asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Right {
    /// The verb.
    pub verb: &'static str,
    /// The API group.
    pub group: &'static str,
    /// The plural, with its subresource.
    pub resource: &'static str,
    /// The namespace; empty for all of them.
    pub namespace: String,
    /// The object; empty for all of them.
    pub name: String,
}

impl Right {
    fn new(verb: &'static str, kind: RetriedKind, namespace: &str, name: &str) -> Self {
        let (group, resource) = match kind {
            RetriedKind::Task => (kelos::GROUP, kelos::TASKS),
            RetriedKind::Workload => (foreman::GROUP, foreman::WORKLOADS),
        };
        Self {
            verb,
            group,
            resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// To delete the Task `name`.
    pub fn delete_task(namespace: &str, name: &str) -> Self {
        Self::new("delete", RetriedKind::Task, namespace, name)
    }

    fn text(&self) -> String {
        let scope = match self.namespace.as_str() {
            "" => "in all namespaces".to_owned(),
            namespace => format!("in namespace {namespace}"),
        };
        format!("{} {}.{} {scope}", self.verb, self.resource, self.group)
    }
}

/// The rights that `request` takes, and the field or annotation that they are for. They are asked for once the object is
/// final.
///
/// * To have an object run again: to delete it and to create its like.
/// * To write `retry.overrides`, which every successor is made with: to create such objects, in every namespace that the
///   policy reaches.
pub fn required_rights(request: &Request<'_>) -> Option<(&'static str, Vec<Right>)> {
    let written = matches!(request.operation, Operation::Create | Operation::Update);
    if request.own || request.phase != Phase::Validating || !written {
        return None;
    }
    match request.kind {
        Kind::WorkItem => {
            let order = retry_order(request)?.ok()?;
            let right = |verb, name| Right::new(verb, order.kind, request.namespace, name);
            Some((keys::RETRY, vec![right("delete", &order.name), right("create", "")]))
        }
        Kind::TaskPolicy | Kind::ClusterTaskPolicy => {
            let retry = |object: &Value| object.pointer("/spec/retry").cloned();
            let (old, new) = (retry(request.old), retry(request.object)?);
            let overrides = |retry: &Value| retry.get("overrides").filter(|value| !value.is_null()).cloned();
            let wanted = overrides(&new)?;
            // Which kinds it covers matters as well.
            let kinds = |retry: &Value| retry.get("kinds").cloned();
            if old.is_some_and(|old| overrides(&old).as_ref() == Some(&wanted) && kinds(&old) == kinds(&new)) {
                return None;
            }
            let rule = RetryPolicy::deserialize(&new).ok()?;
            let kinds = [RetriedKind::Task, RetriedKind::Workload];
            let overrides = rule.overrides.as_ref()?;
            let both = !overrides.labels.is_empty() || !overrides.annotations.is_empty();
            let overridden = |kind| match kind {
                RetriedKind::Task => both || !overrides.task.is_empty(),
                RetriedKind::Workload => both || !overrides.workload.is_empty(),
            };
            let covered = kinds.into_iter().filter(|kind| rule.covers(*kind) && overridden(*kind));
            let rights = covered.map(|kind| Right::new("create", kind, request.namespace, ""));
            Some(("spec.retry.overrides", rights.collect()))
        }
        _ => None,
    }
}

/// The denial of `request`, as its user does not have `right`, or that cannot be found out. `why`: the cause, if there is one.
pub fn right_missing(request: &Request<'_>, field: &'static str, right: &Right, why: &str) -> Decision {
    let gap = if why.is_empty() { "" } else { ": " };
    let detail = Detail::RightMissing {
        field,
        user: request.user.to_owned(),
        right: right.text(),
        why: format!("{gap}{why}"),
    };
    assemble(request.sent, request.phase, vec![Finding::own(detail, Effect::Deny)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn needed(kind: Kind, old: &Value, new: &Value, own: bool) -> Vec<String> {
        let request = Request {
            phase: Phase::Validating,
            kind,
            operation: Operation::Update,
            namespace: if kind == Kind::ClusterTaskPolicy { "" } else { "team" },
            object: new,
            sent: new,
            old,
            user: "ann",
            own,
            dry_run: false,
        };
        let rights = required_rights(&request).map(|(_, rights)| rights).unwrap_or_default();
        rights.iter().map(Right::text).collect()
    }

    #[test]
    fn overrides_take_the_right_to_create_what_they_change() {
        let policy = |retry: Value| json!({"metadata": {"name": "p"}, "spec": {"retry": retry}});
        let plain = policy(json!({"maxAttempts": 2}));
        let task = policy(json!({"maxAttempts": 2, "kinds": ["Task"], "overrides": {"task": {"image": "x"}}}));
        let both = policy(json!({"maxAttempts": 2, "overrides": {"labels": {"a": "b"}}}));
        let create = "create tasks.kelos.dev in namespace team";
        assert_eq!(needed(Kind::TaskPolicy, &Value::Null, &plain, false), [""; 0]);
        assert_eq!(needed(Kind::TaskPolicy, &plain, &task, false), [create]);
        assert_eq!(needed(Kind::TaskPolicy, &task, &task, false), [""; 0]);
        assert_eq!(needed(Kind::TaskPolicy, &plain, &both, false).len(), 2);
        assert_eq!(
            needed(Kind::ClusterTaskPolicy, &plain, &task, false),
            ["create tasks.kelos.dev in all namespaces"]
        );
        let mut wider = task.clone();
        wider["spec"]["retry"]["kinds"] = Value::Null;
        assert_eq!(needed(Kind::TaskPolicy, &wider, &task, false), [create]);
    }

    #[test]
    fn to_have_an_object_run_again_takes_the_rights_to_delete_and_create_it() {
        let item = |order: &str| json!({"metadata": {"annotations": {keys::RETRY: order}}});
        let order = item(r#"{"kind": "Workload", "name": "wl", "uid": "u"}"#);
        let expected = [
            "delete workloads.foreman.llmkube.dev in namespace team",
            "create workloads.foreman.llmkube.dev in namespace team",
        ];
        assert_eq!(needed(Kind::WorkItem, &Value::Null, &order, false), expected);
        assert_eq!(needed(Kind::WorkItem, &order, &order, false), [""; 0]);
        assert_eq!(needed(Kind::WorkItem, &Value::Null, &order, true), [""; 0]);
    }
}
