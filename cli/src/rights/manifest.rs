//! The table as roles: for kustomize with the usual names, for the chart with its templates in their place.

use std::fmt::Write as _;

use super::{CLUSTER, NAMESPACE, Names, Right};

/// Where the roles are for. Everything is written as it stands, so it may be a template.
pub(crate) struct Place<'a> {
    /// The name of roles, bindings and service account.
    pub(crate) name: &'a str,
    /// Taskgate's namespace.
    pub(crate) namespace: &'a str,
    /// What follows `labels:`.
    pub(crate) labels: &'a str,
    /// What the rights are limited to.
    pub(crate) names: &'a Names,
}

impl Place<'_> {
    /// Both roles with their bindings.
    pub(crate) fn roles(&self) -> String {
        let Self { name, namespace, .. } = self;
        let (cluster, own) = (None, Some(*namespace));
        let subject = format!("subjects:\n- kind: ServiceAccount\n  name: {name}\n  namespace: {namespace}\n");
        let reference =
            |kind: &str| format!("roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: {kind}\n  name: {name}\n");
        [
            self.document("ClusterRole", cluster, &self.rules(CLUSTER)),
            self.document("ClusterRoleBinding", cluster, &(reference("ClusterRole") + &subject)),
            self.document("Role", own, &self.rules(NAMESPACE)),
            self.document("RoleBinding", own, &(reference("Role") + &subject)),
        ]
        .concat()
    }

    fn document(&self, kind: &str, namespace: Option<&str>, body: &str) -> String {
        let namespace = namespace.map(|namespace| format!("  namespace: {namespace}\n"));
        format!(
            "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {}\n{}  labels:{}\n{body}",
            self.name,
            namespace.unwrap_or_default(),
            self.labels
        )
    }

    fn rules(&self, rights: &[Right]) -> String {
        rights.iter().fold("rules:\n".to_owned(), |mut text, right| {
            let _ = writeln!(
                text,
                "# {}\n- {}",
                right.why,
                rule(right, right.resources, right.verbs, self.names)
            );
            text
        })
    }
}

/// One rule, on one line.
pub(crate) fn rule(right: &Right, resources: &[&str], verbs: &[&str], names: &Names) -> String {
    let group = if right.group.is_empty() { "\"\"" } else { right.group };
    let limited: Vec<_> = right.names.iter().map(|name| names.of(*name)).collect();
    let limited = if limited.is_empty() {
        String::new()
    } else {
        format!("resourceNames: [{}], ", limited.join(", "))
    };
    format!(
        "{{apiGroups: [{group}], resources: [{}], {limited}verbs: [{}]}}",
        resources.join(", "),
        verbs.join(", ")
    )
}

/// The table for people.
pub(crate) fn table(names: &Names) -> String {
    let mut text = String::new();
    for (title, rights) in [
        ("In the whole cluster", CLUSTER),
        ("In taskgate's own namespace", NAMESPACE),
    ] {
        let _ = write!(
            text,
            "\n## {title}\n\n| Resources | Only | Verbs | For |\n|---|---|---|---|\n"
        );
        for right in rights {
            let code = |words: &[&str]| {
                words
                    .iter()
                    .map(|word| format!("`{word}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            let suffix = if right.group.is_empty() {
                String::new()
            } else {
                format!(" ({})", right.group)
            };
            let limited: Vec<_> = right.names.iter().map(|name| names.of(*name)).collect();
            let _ = writeln!(
                text,
                "| {}{suffix} | {} | {} | {} |",
                code(right.resources),
                code(&limited),
                right.verbs.join(", "),
                right.why
            );
        }
    }
    text
}
