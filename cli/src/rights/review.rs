//! The table of rights as single permissions, and those that are not granted as rules to add. `serve` reviews its own: a missing
//! one is logged with the rule to add, long before the first request that fails for want of it.

use std::{sync::atomic::AtomicI64, time::Duration};

use k8s_openapi::api::authorization::v1::{ResourceRule, SelfSubjectRulesReview, SelfSubjectRulesReviewSpec};
use kube::{Api, Client, api::PostParams};
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use taskgate_policy::Right;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Names, RbacRight, needed};

/// The interval while a right is missing.
const INTERVAL_MISSING: Duration = Duration::from_secs(15);
/// The interval otherwise: a right can be revoked.
const INTERVAL: Duration = Duration::from_mins(10);

/// A right of the table, or a part of it, that is not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MissingRight {
    /// The kind of role that has it in the shipped manifests.
    pub(crate) role: &'static str,
    pub(crate) why: &'static str,
    pub(crate) rule: String,
}

/// Every permission that the enabled features need.
pub(crate) fn permissions(names: &Names) -> Vec<Right> {
    let mut permissions = Vec::new();
    for right in needed(names) {
        for resource in &right.rule.resources {
            for verb in &right.rule.verbs {
                permissions.extend(of_right(right, resource, verb, names));
            }
        }
    }
    permissions
}

/// The rules to add so that every permission is `allowed`.
pub(crate) fn missing_rights(names: &Names, allowed: impl Fn(&Right) -> bool) -> Vec<MissingRight> {
    let mut missing = Vec::new();
    for right in needed(names) {
        let lacks = |resource: &&'static str, verb: &&'static str| {
            let mut permissions = of_right(right, resource, verb, names);
            permissions.any(|permission| !allowed(&permission))
        };
        let mut resources: Vec<_> = right.rule.resources.iter().map(String::as_str).collect();
        let mut verbs: Vec<_> = right.rule.verbs.iter().map(String::as_str).collect();
        resources.retain(|resource| verbs.iter().any(|verb| lacks(resource, verb)));
        verbs.retain(|verb| resources.iter().any(|resource| lacks(resource, verb)));
        if !resources.is_empty() {
            missing.push(MissingRight {
                role: if right.in_own_namespace { "Role" } else { "ClusterRole" },
                why: right.why,
                rule: rule(right, &resources, &verbs, names),
            });
        }
    }
    missing
}

/// A part of the right as a rule, on one line.
fn rule(right: &RbacRight, resources: &[&str], verbs: &[&str], names: &Names) -> String {
    let group = match right.rule.group() {
        "" => "\"\"",
        group => group,
    };
    let limited = match right.rule.objects(names).join(", ") {
        all if all.is_empty() => all,
        some => format!("resourceNames: [{some}], "),
    };
    let (resources, verbs) = (resources.join(", "), verbs.join(", "));
    format!("{{apiGroups: [{group}], resources: [{resources}], {limited}verbs: [{verbs}]}}")
}

/// The permissions of one verb on one resource: one for each object that the right is limited to.
fn of_right(
    right: &'static RbacRight,
    resource: &'static str,
    verb: &'static str,
    names: &Names,
) -> impl Iterator<Item = Right> + use<> {
    let mut objects = right.rule.objects(names);
    if objects.is_empty() {
        // All of them.
        objects.push(String::new());
    }
    let namespace = if right.in_own_namespace {
        names.namespace.clone()
    } else {
        String::new()
    };
    objects.into_iter().map(move |name| Right {
        verb,
        group: right.rule.group(),
        resource,
        namespace: namespace.clone(),
        name,
    })
}

/// Compares the table with the granted rights periodically, and logs changes.
pub(crate) struct RightsReview {
    client: Client,
    names: Names,
    missing: Gauge<i64, AtomicI64>,
}

impl RightsReview {
    /// For the installation with these `names`. `registry` carries the prefix `taskgate`.
    pub(crate) fn register(client: Client, names: Names, registry: &mut Registry) -> Self {
        let missing = Gauge::default();
        registry.register(
            "rights_missing",
            "Rules of the shipped roles that are not granted, or not wholly; the log names them",
            missing.clone(),
        );
        Self { client, names, missing }
    }

    /// Runs until `shutdown`. RBAC: `create` on selfsubjectrulesreviews, which every user may; nothing is stored.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut logged = Vec::new();
        let reviews = async {
            loop {
                let pause = match self.missing_rights().await {
                    Ok(missing) => {
                        self.missing.set(i64::try_from(missing.len()).unwrap_or(i64::MAX));
                        log(&logged, &missing);
                        let pause = if missing.is_empty() { INTERVAL } else { INTERVAL_MISSING };
                        logged = missing;
                        pause
                    }
                    Err(error) => {
                        debug!(%error, "the granted rights cannot be read");
                        INTERVAL_MISSING
                    }
                };
                sleep(pause).await;
            }
        };
        shutdown.run_until_cancelled(reviews).await;
    }

    async fn missing_rights(&self) -> kube::Result<Vec<MissingRight>> {
        let review = SelfSubjectRulesReview {
            spec: SelfSubjectRulesReviewSpec {
                namespace: Some(self.names.namespace.clone()),
            },
            ..SelfSubjectRulesReview::default()
        };
        let reviews = Api::<SelfSubjectRulesReview>::all(self.client.clone());
        let review = reviews.create(&PostParams::default(), &review).await?;
        let status = review.status.unwrap_or_default();
        // An authorizer that cannot list its rules (a webhook) may still allow everything.
        if status.incomplete {
            debug!(
                reason = status.evaluation_error,
                "the API server cannot list all granted rights"
            );
            return Ok(Vec::new());
        }
        Ok(missing(&status.resource_rules, &self.names))
    }
}

/// Logs rights that were not missing before, and that none is missing any more.
fn log(logged: &[MissingRight], missing: &[MissingRight]) {
    for right in missing.iter().filter(|right| !logged.contains(right)) {
        let MissingRight { role, why, rule } = right;
        warn!(role, why, rule, "a right is missing: add this rule to taskgate's role");
    }
    if missing.is_empty() && !logged.is_empty() {
        info!("all rights are granted");
    }
}

fn missing(granted: &[ResourceRule], names: &Names) -> Vec<MissingRight> {
    missing_rights(names, |permission| granted.iter().any(|rule| grants(rule, permission)))
}

/// Whether `rule` grants `right`.
fn grants(rule: &ResourceRule, right: &Right) -> bool {
    let has = |list: &[String], wanted: &str| list.iter().any(|entry| entry == "*" || entry == wanted);
    let of_any = right.resource.split_once('/');
    let of_any = of_any.map(|(_, subresource)| format!("*/{subresource}"));
    let resources = rule.resources.as_deref().unwrap_or_default();
    let limited = rule.resource_names.as_deref().unwrap_or_default();
    has(&rule.verbs, right.verb)
        && has(rule.api_groups.as_deref().unwrap_or_default(), right.group)
        && (has(resources, right.resource) || of_any.is_some_and(|of_any| has(resources, &of_any)))
        && (limited.is_empty() || limited.contains(&right.name))
}

#[cfg(test)]
mod tests {
    use super::{super::Feature, *};

    fn names() -> Names {
        Names::default()
    }

    fn all() -> Vec<&'static RbacRight> {
        needed(&names()).collect()
    }

    fn granted(rights: &[&RbacRight]) -> Vec<ResourceRule> {
        let granted = |right: &&RbacRight| ResourceRule {
            api_groups: Some(right.rule.api_groups.to_vec()),
            resources: Some(right.rule.resources.clone()),
            resource_names: Some(right.rule.objects(&names())),
            verbs: right.rule.verbs.clone(),
        };
        rights.iter().map(granted).collect()
    }

    #[test]
    fn all_rights_and_admin_rights_lack_nothing() {
        assert_eq!(missing(&granted(&all()), &names()), []);
        let any = || Some(vec!["*".to_owned()]);
        let admin = ResourceRule {
            api_groups: any(),
            resources: any(),
            resource_names: None,
            verbs: vec!["*".to_owned()],
        };
        assert_eq!(missing(&[admin], &names()), []);
    }

    #[test]
    fn a_disabled_feature_needs_no_rights() {
        let mut names = names();
        let some = all()
            .into_iter()
            .filter(|right| right.rule.group() != taskgate_api::foreman::GROUP);
        let granted = granted(&some.collect::<Vec<_>>());
        assert_eq!(missing(&granted, &names).len(), 2);
        names.without = vec![Feature::Foreman, Feature::KelosFields];
        assert_eq!(missing(&granted, &names), []);
    }

    #[test]
    fn a_missing_right_comes_with_the_rule_to_add() {
        let mut granted = granted(&all());
        for rule in &mut granted {
            let resources = rule.resources.as_mut().unwrap();
            if resources[0] == "tasks" {
                rule.verbs.retain(|verb| verb != "patch" && verb != "delete");
            }
            resources.retain(|resource| resource != "taskspawners/status");
            if rule
                .resource_names
                .as_ref()
                .unwrap()
                .contains(&"taskgate-serving-cert".to_owned())
            {
                rule.resource_names = Some(vec!["another".to_owned()]);
            }
        }
        let rules: Vec<_> = missing(&granted, &names())
            .into_iter()
            .map(|one| (one.role, one.rule))
            .collect();
        let wanted = [
            (
                "ClusterRole",
                "{apiGroups: [kelos.dev], resources: [tasks], verbs: [delete, patch]}",
            ),
            (
                "ClusterRole",
                "{apiGroups: [kelos.dev], resources: [taskspawners/status], verbs: [patch]}",
            ),
            (
                "Role",
                "{apiGroups: [\"\"], resources: [secrets], resourceNames: [taskgate-serving-cert], verbs: [get, list, update, watch]}",
            ),
        ];
        assert_eq!(rules, wanted.map(|(role, rule)| (role, rule.to_owned())));
    }
}
