//! The table of rights as roles: for kustomize with the default names, for the chart with templates instead.

use std::fmt::Write as _;

use super::{CLUSTER, FEATURES, Feature, NAMESPACE, Names, RbacRight};

/// The texts that the roles are generated with; each may be a template.
pub(crate) struct RoleManifests<'a> {
    /// The name of roles, bindings and service account.
    pub(crate) name: &'a str,
    /// Taskgate's namespace.
    pub(crate) namespace: &'a str,
    /// The text after `labels:`.
    pub(crate) labels: &'a str,
    /// The names that rights are limited to.
    pub(crate) names: &'a Names,
    /// The text before and after the role of a feature that can be disabled.
    pub(crate) feature_guard: fn(Feature) -> [String; 2],
}

impl RoleManifests<'_> {
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
        format!(
            "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {}{suffix}\n{}  labels:{}\n{body}",
            self.name,
            namespace.unwrap_or_default(),
            self.labels
        )
    }

    fn rules(&self, rights: &[RbacRight]) -> String {
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
pub(crate) fn rule(right: &RbacRight, resources: &[&str], verbs: &[&str], names: &Names) -> String {
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

/// The table of rights in Markdown.
pub(crate) fn table(names: &Names) -> String {
    let mut text = String::new();
    let code = |words: &[&str]| {
        let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
        words.join(", ")
    };
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
