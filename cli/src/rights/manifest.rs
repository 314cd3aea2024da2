//! The manifests of the service account: for kustomize with the default names, for the chart with templates instead.

use super::{Feature, Names};

/// The roles with their bindings: for the whole cluster, between `#if` and `#end` for each feature, and for taskgate's own namespace.
/// Each rule is on one line, below its purpose.
pub(crate) const ROLES: &str = include_str!("roles.yaml");

/// The limits of taskgate's service account beyond its roles: RBAC knows verbs and resources, a `ValidatingAdmissionPolicy` also
/// which fields a write changes. A process with taskgate's token can then neither create a workload of its own nor redirect
/// webhooks. taskgate has no right to change them.
///
/// One policy for each kind of object, with its binding. `$(NAME)`, `$(ACCOUNT)`, `$(NAMESPACE)` and `$(LABELS)` are those of an installation.
pub(crate) const LIMITS: &str = include_str!("limits.yaml");

/// The roles of users: to view and to edit policies, aggregated to Kubernetes' own roles; and to operate.
pub(crate) const USER_ROLES: &str = include_str!("users.yaml");

/// The texts of an installation; each may be a template.
pub(crate) struct RightsManifests<'a> {
    /// The name of roles and bindings.
    pub(crate) name: &'a str,
    /// The name of the service account.
    pub(crate) account: &'a str,
    /// The lines below `metadata:`, labels last.
    pub(crate) metadata: &'a str,
    /// The names that rights are limited to.
    pub(crate) names: &'a Names,
    /// The lines before and after the role of a feature that can be disabled.
    pub(crate) feature_guard: fn(Feature) -> [String; 2],
}

impl RightsManifests<'_> {
    /// [`ROLES`], [`USER_ROLES`] or [`LIMITS`] with these texts, without the features that the names leave out.
    pub(crate) fn fill(&self, manifest: &str) -> String {
        let manifest = self.texts(manifest);
        Feature::ALL.into_iter().fold(manifest, |manifest, feature| {
            let [before, after] = (self.feature_guard)(feature);
            let Some((head, section, tail)) = section(&manifest, feature) else {
                return manifest;
            };
            if self.names.without.contains(&feature) {
                return format!("{head}{tail}");
            }
            format!("{head}{before}{section}{after}{tail}")
        })
    }

    /// The objects of `feature` alone.
    pub(crate) fn of_feature(&self, feature: Feature) -> String {
        let roles = self.texts(ROLES);
        section(&roles, feature)
            .map(|(_, section, _)| section.to_owned())
            .unwrap_or_default()
    }

    fn texts(&self, manifest: &str) -> String {
        let manifest = self.names.fill(manifest);
        manifest
            .replace("$(NAME)", self.name)
            .replace("$(ACCOUNT)", self.account)
            .replace("labels:\n    $(LABELS)", self.metadata)
    }
}

/// The text before, in and after the section of `feature`.
fn section(manifest: &str, feature: Feature) -> Option<(&str, &str, &str)> {
    let (head, rest) = manifest.split_once(&format!("#if {}\n", feature.suffix()))?;
    let (section, tail) = rest.split_once("#end\n")?;
    Some((head, section, tail))
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
