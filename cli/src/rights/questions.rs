//! The table of rights as single questions, for whoever can answer them, and the answers as rules that are to be added.

use super::{NAMESPACE, Names, Right, cluster, manifest::rule};

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

/// Everything that has to be allowed, for the features that are enabled.
pub(crate) fn questions(names: &Names) -> Vec<Question> {
    let of = |right: &'static Right, at_home| {
        let resources = right.resources.iter();
        resources.flat_map(move |resource| {
            let verbs = right.verbs.iter();
            verbs.flat_map(move |verb| about(right, at_home, resource, verb, names))
        })
    };
    let own = NAMESPACE.iter().flat_map(|right| of(right, true));
    cluster(names).flat_map(|right| of(right, false)).chain(own).collect()
}

/// The rules that are to be added so that all of the table is `allowed`.
pub(crate) fn missing(names: &Names, allowed: impl Fn(&Question) -> bool) -> Vec<Missing> {
    let mut missing = Vec::new();
    let own = NAMESPACE.iter().map(|right| ("Role", right, true));
    for (role, right, at_home) in cluster(names).map(|right| ("ClusterRole", right, false)).chain(own) {
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
