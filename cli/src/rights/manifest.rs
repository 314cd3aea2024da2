//! The table as roles: for kustomize with the usual names, for the chart with its templates in their place.

use std::fmt::Write as _;

use super::{CLUSTER, FEATURES, Feature, NAMESPACE, Names, Right};

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
    /// What stands around the role of a feature that may be disabled.
    pub(crate) around: fn(Feature) -> [String; 2],
}

impl Place<'_> {
    /// The roles with their bindings: for the whole cluster, for each feature, for taskgate's own namespace.
    pub(crate) fn roles(&self) -> String {
        let Self { name, namespace, .. } = self;
        let (cluster, own) = (None, Some(*namespace));
        let subject = format!("subjects:\n- kind: ServiceAccount\n  name: {name}\n  namespace: {namespace}\n");
        let pair = |kind: &str, suffix: &str, namespace: Option<&str>, rights: &[Right]| {
            let reference =
                format!("roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: {kind}\n  name: {name}{suffix}\n");
            let binding = self.document(&format!("{kind}Binding"), suffix, namespace, &(reference + &subject));
            self.document(kind, suffix, namespace, &self.rules(rights)) + &binding
        };
        let features = FEATURES.map(|(feature, rights)| {
            let [before, after] = (self.around)(feature);
            let suffix = format!("-{}", feature.suffix());
            before + &pair("ClusterRole", &suffix, cluster, rights) + &after
        });
        pair("ClusterRole", "", cluster, CLUSTER) + &features.concat() + &pair("Role", "", own, NAMESPACE)
    }

    fn document(&self, kind: &str, suffix: &str, namespace: Option<&str>, body: &str) -> String {
        let namespace = namespace.map(|namespace| format!("  namespace: {namespace}\n"));
        format!(
            "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {}{suffix}\n{}  labels:{}\n{body}",
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
    let features = FEATURES.map(|(feature, rights)| {
        let title = format!(
            "In the whole cluster, unless `--no-{}` (chart: `features.{}: false`)",
            feature.suffix(),
            feature.value()
        );
        (title, rights)
    });
    let cluster = ("In the whole cluster".to_owned(), CLUSTER);
    let own = ("In taskgate's own namespace".to_owned(), NAMESPACE);
    for (title, rights) in [cluster].into_iter().chain(features).chain([own]) {
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
