//! The table of rights as single permissions, and those that are not granted as rules to add.

use super::{NAMESPACE, Names, RbacRight, cluster, manifest::rule};

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RbacPermission {
    /// In taskgate's own namespace; else in the whole cluster.
    pub(crate) in_own_namespace: bool,
    /// The API group.
    pub(crate) group: &'static str,
    /// The resource, with its subresource.
    pub(crate) resource: &'static str,
    /// The one object that it is limited to; `None`: all.
    pub(crate) object: Option<String>,
    /// The verb.
    pub(crate) verb: &'static str,
}

/// A right of the table, or a part of it, that is not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MissingRight {
    /// The kind of role that has it in the shipped manifests.
    pub(crate) role: &'static str,
    pub(crate) why: &'static str,
    pub(crate) rule: String,
}

/// Every permission that the enabled features need.
pub(crate) fn permissions(names: &Names) -> Vec<RbacPermission> {
    let of = |right: &'static RbacRight, in_own_namespace| {
        let resources = right.resources.iter();
        resources.flat_map(move |resource| {
            let verbs = right.verbs.iter();
            verbs.flat_map(move |verb| of_right(right, in_own_namespace, resource, verb, names))
        })
    };
    let own = NAMESPACE.iter().flat_map(|right| of(right, true));
    cluster(names).flat_map(|right| of(right, false)).chain(own).collect()
}

/// The rules to add so that every permission is `allowed`.
pub(crate) fn missing(names: &Names, allowed: impl Fn(&RbacPermission) -> bool) -> Vec<MissingRight> {
    let mut missing = Vec::new();
    let own = NAMESPACE.iter().map(|right| ("Role", right, true));
    for (role, right, in_own_namespace) in cluster(names).map(|right| ("ClusterRole", right, false)).chain(own) {
        let lacks = |resource: &'static str, verb: &'static str| {
            !of_right(right, in_own_namespace, resource, verb, names)
                .iter()
                .all(&allowed)
        };
        let resources = right.resources.iter().copied();
        let resources: Vec<_> = resources
            .filter(|resource| right.verbs.iter().any(|verb| lacks(resource, verb)))
            .collect();
        let verbs = right.verbs.iter().copied();
        let verbs: Vec<_> = verbs
            .filter(|verb| resources.iter().any(|resource| lacks(resource, verb)))
            .collect();
        if !resources.is_empty() {
            missing.push(MissingRight {
                role,
                why: right.why,
                rule: rule(right, &resources, &verbs, names),
            });
        }
    }
    missing
}

/// The permissions of one verb on one resource: one for each object that the right is limited to.
fn of_right(
    right: &RbacRight,
    in_own_namespace: bool,
    resource: &'static str,
    verb: &'static str,
    names: &Names,
) -> Vec<RbacPermission> {
    let permission = |object: Option<String>| RbacPermission {
        in_own_namespace,
        group: right.group,
        resource,
        object,
        verb,
    };
    if right.names.is_empty() {
        return vec![permission(None)];
    }
    let objects = right.names.iter().map(|name| names.of(*name).to_owned());
    objects.map(|object| permission(Some(object))).collect()
}
