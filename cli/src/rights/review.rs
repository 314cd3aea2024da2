//! Whether we may do what we have to: the table against what the API server says. What is missing is named, with the rule to
//! add, long before the first request that fails for want of it.

use std::{sync::atomic::AtomicI64, time::Duration};

use k8s_openapi::api::authorization::v1::{ResourceRule, SelfSubjectRulesReview, SelfSubjectRulesReviewSpec};
use kube::{Api, Client, api::PostParams};
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Names,
    questions::{self, Missing, Question},
};

/// How often we ask while something is missing.
const SOON: Duration = Duration::from_secs(15);
/// How often we ask otherwise: somebody may take a right away.
const SELDOM: Duration = Duration::from_mins(10);

/// Compares now and then, and tells what is news.
pub(crate) struct RightsReview {
    client: Client,
    namespace: String,
    names: Names,
    missing: Gauge<i64, AtomicI64>,
}

impl RightsReview {
    /// For a taskgate in `namespace`. `registry` carries the prefix `taskgate`.
    pub(crate) fn register(client: Client, namespace: &str, names: Names, registry: &mut Registry) -> Self {
        let missing = Gauge::default();
        registry.register(
            "rights_missing",
            "Rules of the shipped roles that are not granted, or not wholly; the log names them",
            missing.clone(),
        );
        Self {
            client,
            namespace: namespace.to_owned(),
            names,
            missing,
        }
    }

    /// Runs until `shutdown`. RBAC: `create` on selfsubjectrulesreviews, which everybody may; nothing is stored.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut told = Vec::new();
        let asking = async {
            loop {
                let pause = match self.ask().await {
                    Ok(missing) => {
                        self.missing.set(i64::try_from(missing.len()).unwrap_or(i64::MAX));
                        tell(&told, &missing);
                        let pause = if missing.is_empty() { SELDOM } else { SOON };
                        told = missing;
                        pause
                    }
                    Err(error) => {
                        debug!(%error, "what we may do is not known");
                        SOON
                    }
                };
                sleep(pause).await;
            }
        };
        shutdown.run_until_cancelled(asking).await;
    }

    async fn ask(&self) -> kube::Result<Vec<Missing>> {
        let review = SelfSubjectRulesReview {
            spec: SelfSubjectRulesReviewSpec {
                namespace: Some(self.namespace.clone()),
            },
            ..SelfSubjectRulesReview::default()
        };
        let reviews = Api::<SelfSubjectRulesReview>::all(self.client.clone());
        let review = reviews.create(&PostParams::default(), &review).await?;
        let status = review.status.unwrap_or_default();
        // An authorizer that cannot list its rules (a webhook) may still allow everything: then silence is the better answer.
        if status.incomplete {
            debug!(
                why = status.evaluation_error,
                "the API server does not know all that we may do"
            );
            return Ok(Vec::new());
        }
        Ok(missing(&status.resource_rules, &self.names))
    }
}

/// Says what was not missing before, and that nothing is any more.
fn tell(told: &[Missing], missing: &[Missing]) {
    for one in missing.iter().filter(|one| !told.contains(one)) {
        let Missing { role, why, rule } = one;
        warn!(role, why, rule, "a right is missing: add this rule to taskgate's role");
    }
    if missing.is_empty() && !told.is_empty() {
        info!("all rights are there");
    }
}

fn missing(granted: &[ResourceRule], names: &Names) -> Vec<Missing> {
    questions::missing(names, |question| granted.iter().any(|rule| grants(rule, question)))
}

/// Whether `rule` allows what is asked.
fn grants(rule: &ResourceRule, question: &Question) -> bool {
    let Question {
        group,
        resource,
        object,
        verb,
        ..
    } = question;
    let has = |list: &[String], wanted: &str| list.iter().any(|entry| entry == "*" || entry == wanted);
    let of_any = resource
        .split_once('/')
        .map(|(_, subresource)| format!("*/{subresource}"));
    let resources = rule.resources.as_deref().unwrap_or_default();
    let limited = rule.resource_names.as_deref().unwrap_or_default();
    has(&rule.verbs, verb)
        && has(rule.api_groups.as_deref().unwrap_or_default(), group)
        && (has(resources, resource) || of_any.is_some_and(|of_any| has(resources, &of_any)))
        && (limited.is_empty() || object.as_ref().is_some_and(|object| limited.contains(object)))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Feature, NAMESPACE, Right, cluster},
        *,
    };
    use crate::manifests::usual_names as names;

    fn all() -> Vec<Right> {
        cluster(&names()).chain(NAMESPACE).copied().collect()
    }

    fn granted(rights: &[Right]) -> Vec<ResourceRule> {
        let owned = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        let limited = |right: &Right| right.names.iter().map(|name| names().of(*name).to_owned()).collect();
        rights
            .iter()
            .map(|right| ResourceRule {
                api_groups: Some(vec![right.group.to_owned()]),
                resources: Some(owned(right.resources)),
                resource_names: Some(limited(right)),
                verbs: owned(right.verbs),
            })
            .collect()
    }

    #[test]
    fn who_has_all_or_everything_lacks_nothing() {
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
    fn a_feature_that_is_disabled_lacks_nothing() {
        let mut names = names();
        let some = all()
            .into_iter()
            .filter(|right| right.group != taskgate_api::foreman::GROUP);
        let granted = granted(&some.collect::<Vec<_>>());
        assert_eq!(missing(&granted, &names).len(), 2);
        names.without = vec![Feature::Foreman];
        assert_eq!(missing(&granted, &names), []);
    }

    #[test]
    fn what_is_missing_is_named_with_the_rule_to_add() {
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
