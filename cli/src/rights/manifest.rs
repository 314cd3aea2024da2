//! The rights as manifests: the roles, from the table, and the limits of the service account beyond them, from a template. For
//! kustomize with the default names, for the chart with templates instead.

use std::fmt::Write as _;

use super::{CLUSTER, FEATURES, Feature, NAMESPACE, Names, RbacRight};

/// The limits of taskgate's service account beyond its roles: RBAC knows verbs and resources, a `ValidatingAdmissionPolicy` also
/// which fields a write changes. A process with taskgate's token can then neither create a workload of its own nor redirect
/// webhooks. taskgate has no right to change them.
///
/// One policy for each kind of object, with its binding. `${NAME}`, `${NAMESPACE}` and `${LABELS}` are those of an installation.
pub(crate) const LIMITS: &str = include_str!("limits.yaml");

/// The texts that the manifests are generated with; each may be a template.
pub(crate) struct RightsManifests<'a> {
    /// The name of roles, bindings and service account.
    pub(crate) name: &'a str,
    /// Taskgate's namespace.
    pub(crate) namespace: &'a str,
    /// The line below `labels:`.
    pub(crate) labels: &'a str,
    /// The names that rights are limited to.
    pub(crate) names: &'a Names,
    /// The text before and after the role of a feature that can be disabled.
    pub(crate) feature_guard: fn(Feature) -> [String; 2],
}

impl RightsManifests<'_> {
    /// The admission policies that limit what the roles allow.
    pub(crate) fn limits(&self) -> String {
        let texts = [
            ("${NAME}", self.name),
            ("${NAMESPACE}", self.namespace),
            ("${LABELS}", self.labels),
        ];
        texts.iter().fold(LIMITS.to_owned(), |limits, (variable, text)| {
            limits.replace(variable, text)
        })
    }

    /// The roles with their bindings: for the whole cluster, for each feature, for taskgate's own namespace.
    pub(crate) fn roles(&self) -> String {
        let Self { name, namespace, .. } = self;
        let (cluster, own) = (None, Some(*namespace));
        let subject = format!("subjects:\n- kind: ServiceAccount\n  name: {name}\n  namespace: {namespace}\n");
        let pair = |kind: &str, suffix: &str, namespace: Option<&str>, rights: &[RbacRight]| {
            let reference =
                format!("roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: {kind}\n  name: {name}{suffix}\n");
            let binding = self.document(&format!("{kind}Binding"), suffix, namespace, &(reference + &subject));
            self.document(kind, suffix, namespace, &self.rules(rights)) + &binding
        };
        let features = FEATURES.map(|(feature, rights)| {
            let [before, after] = (self.feature_guard)(feature);
            let suffix = format!("-{}", feature.suffix());
            before + &pair("ClusterRole", &suffix, cluster, rights) + &after
        });
        pair("ClusterRole", "", cluster, CLUSTER) + &features.concat() + &pair("Role", "", own, NAMESPACE)
    }

    fn document(&self, kind: &str, suffix: &str, namespace: Option<&str>, body: &str) -> String {
        let namespace = namespace.map(|namespace| format!("  namespace: {namespace}\n"));
        let (name, labels, namespace) = (self.name, self.labels, namespace.unwrap_or_default());
        format!(
            "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {name}{suffix}\n{namespace}  labels:\n    \
             {labels}\n{body}"
        )
    }

    fn rules(&self, rights: &[RbacRight]) -> String {
        rights.iter().fold("rules:\n".to_owned(), |mut text, right| {
            let rule = rule(right, right.resources, right.verbs, self.names);
            let _ = writeln!(text, "# {}\n- {rule}", right.why);
            text
        })
    }
}

/// One rule, on one line.
pub(crate) fn rule(right: &RbacRight, resources: &[&str], verbs: &[&str], names: &Names) -> String {
    let group = if right.group.is_empty() { "\"\"" } else { right.group };
    let limited = match names.all(right.names).join(", ") {
        all if all.is_empty() => all,
        some => format!("resourceNames: [{some}], "),
    };
    let (resources, verbs) = (resources.join(", "), verbs.join(", "));
    format!("{{apiGroups: [{group}], resources: [{resources}], {limited}verbs: [{verbs}]}}")
}

#[cfg(test)]
mod tests {
    use taskgate_api::{foreman, kelos, keys, switch};
    use taskgate_webhook::rules::EXCLUDED_NAMESPACES;

    use super::*;

    #[test]
    fn the_limits_have_the_names_of_the_code() {
        for name in EXCLUDED_NAMESPACES {
            assert!(LIMITS.contains(&format!("'{name}', ")), "{name}");
        }
        for key in [
            keys::ADMISSION,
            keys::ADMISSION_DISABLED,
            keys::ACCOUNTING,
            keys::RETRY_OF,
            keys::CANCEL_DEADLINE,
            kelos::CANCEL_TASK,
            switch::CONDITION,
        ] {
            assert!(LIMITS.contains(&format!("'{key}'")), "{key}");
        }
        for group in [kelos::GROUP, foreman::GROUP] {
            assert!(LIMITS.contains(&format!("apiGroups: [\"{group}\"]")), "{group}");
        }
        assert!(LIMITS.contains(&format!("startsWith('{}/')", kelos::GROUP)));
    }
}
