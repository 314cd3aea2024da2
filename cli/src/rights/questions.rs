//! The table of rights as single questions, for whoever can answer them, and the answers as rules that are to be added.

use super::{CLUSTER, NAMESPACE, Names, Right, manifest::rule};

/// Whether one verb is allowed on one resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// In taskgate's own namespace; else in the whole cluster.
    pub(crate) at_home: bool,
    /// The API group.
    pub(crate) group: &'static str,
    /// The resource, with its subresource.
    pub(crate) resource: &'static str,
    /// The one object that it is about; `None`: all of them.
    pub(crate) object: Option<String>,
    /// The verb.
    pub(crate) verb: &'static str,
}

/// A right that we lack, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// The kind of role that has it in the shipped manifests.
    pub(crate) role: &'static str,
    pub(crate) why: &'static str,
    pub(crate) rule: String,
}

/// Everything that has to be allowed.
pub(crate) fn questions(names: &Names) -> Vec<Question> {
    let of = |rights: &'static [Right], at_home| {
        rights.iter().flat_map(move |right| {
            let resources = right.resources.iter();
            resources.flat_map(move |resource| {
                right
                    .verbs
                    .iter()
                    .flat_map(move |verb| about(right, at_home, resource, verb, names))
            })
        })
    };
    of(CLUSTER, false).chain(of(NAMESPACE, true)).collect()
}

/// The rules that are to be added so that all of the table is `allowed`.
pub(crate) fn missing(names: &Names, allowed: impl Fn(&Question) -> bool) -> Vec<Missing> {
    let mut missing = Vec::new();
    for (role, rights, at_home) in [("ClusterRole", CLUSTER, false), ("Role", NAMESPACE, true)] {
        for right in rights {
            let lacks = |resource: &'static str, verb: &'static str| {
                !about(right, at_home, resource, verb, names).iter().all(&allowed)
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
                missing.push(Missing {
                    role,
                    why: right.why,
                    rule: rule(right, &resources, &verbs, names),
                });
            }
        }
    }
    missing
}

/// The questions about one verb on one resource: one for each object that the right is limited to.
fn about(right: &Right, at_home: bool, resource: &'static str, verb: &'static str, names: &Names) -> Vec<Question> {
    let question = |object: Option<String>| Question {
        at_home,
        group: right.group,
        resource,
        object,
        verb,
    };
    if right.names.is_empty() {
        return vec![question(None)];
    }
    let objects = right.names.iter().map(|name| names.of(*name).to_owned());
    objects.map(|object| question(Some(object))).collect()
}
