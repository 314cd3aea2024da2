//! `SourceReadable` on a policy: whether what it waits for can be read at its source.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, Patch, PatchParams},
};
use serde_json::json;
use taskgate_api::{ClusterTaskPolicy, TaskPolicy};
use taskgate_policy::{
    PolicyName, clip,
    source::{Interests, SourceKey},
};

use super::trouble::Trouble;
use crate::{context::Context, error::is_absent, policies::PolicyHead};

/// The condition's type.
const SOURCE_READABLE: &str = "SourceReadable";
/// The field manager of this condition, apart from the one of `Accepted`.
const MANAGER: &str = "taskgate-source";
/// How many failures in a row it takes until one that may pass by itself is told.
const PATIENCE: u32 = 3;
/// The longest message, in characters.
const MAX_MESSAGE: usize = 1024;

/// How reading one item goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    /// What went wrong last; `None` after an answer, and before the first try.
    pub(super) trouble: Option<Trouble>,
    /// How often in a row it went wrong.
    pub(super) failures: u32,
    /// Whether the item was ever read.
    pub(super) answered: bool,
}

impl Health {
    pub(super) fn fail(&mut self, trouble: Trouble) {
        self.failures = self.failures.saturating_add(1);
        self.trouble = Some(trouble);
    }
}

/// What a policy's condition is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing is certain yet: what stands there stays.
    Unknown,
    Readable,
    Trouble(Trouble),
}

/// Says it on every policy where something else stands. A policy that waits for nothing any more loses what it was told of
/// trouble.
///
/// RBAC: `patch` on the status of both kinds of policies.
pub(super) async fn tell(context: &Context, interests: &Interests, health: &BTreeMap<SourceKey, Health>) {
    let verdicts = verdicts(interests, health);
    for policy in context.policies.local.state() {
        let namespace = policy.namespace().unwrap_or_default();
        let name = PolicyName::Namespaced {
            namespace: namespace.clone(),
            name: policy.name_any(),
        };
        let kind = ApiResource::erase::<TaskPolicy>(&());
        let api = Api::namespaced_with(context.client.clone(), &namespace, &kind);
        write(&api, &kind, &policy, verdicts.get(&name)).await;
    }
    for policy in context.policies.cluster.state() {
        let name = PolicyName::Cluster {
            name: policy.name_any(),
        };
        let kind = ApiResource::erase::<ClusterTaskPolicy>(&());
        let api = Api::all_with(context.client.clone(), &kind);
        write(&api, &kind, &policy, verdicts.get(&name)).await;
    }
}

/// What is to be said of each policy that waits for something. The message names one trouble, always the same as long as
/// it lasts, so that it is written once.
fn verdicts(interests: &Interests, health: &BTreeMap<SourceKey, Health>) -> BTreeMap<PolicyName, Verdict> {
    let mut verdicts = BTreeMap::new();
    for (key, interest) in interests {
        let health = health.get(key).cloned().unwrap_or_default();
        let verdict = match health.trouble {
            Some(trouble) if !trouble.is_passing() || health.failures >= PATIENCE => Verdict::Trouble(trouble),
            None if health.answered => Verdict::Readable,
            _ => Verdict::Unknown,
        };
        for policy in &interest.policies {
            let slot = verdicts.entry(policy.clone()).or_insert_with(|| verdict.clone());
            match (&*slot, &verdict) {
                (Verdict::Trouble(_), _) => {}
                (_, Verdict::Trouble(_)) | (Verdict::Readable, Verdict::Unknown) => *slot = verdict.clone(),
                _ => {}
            }
        }
    }
    verdicts
}

async fn write(api: &Api<PolicyHead>, kind: &ApiResource, policy: &PolicyHead, verdict: Option<&Verdict>) {
    let status = policy.status.as_ref();
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let current = conditions.iter().find(|condition| condition.type_ == SOURCE_READABLE);
    let generation = policy.metadata.generation;
    let wanted = match verdict {
        Some(Verdict::Unknown) => return,
        None => match current {
            Some(current) if current.status == "False" => None,
            _ => return,
        },
        Some(Verdict::Readable) => Some(condition("True", "Answered", "the sources answer", current, generation)),
        Some(Verdict::Trouble(trouble)) => Some(condition(
            "False",
            trouble.reason(),
            &trouble.to_string(),
            current,
            generation,
        )),
    };
    if wanted.as_ref() == current {
        return;
    }
    let patch = json!({
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "status": {"conditions": wanted.iter().collect::<Vec<_>>()},
    });
    let name = policy.name_any();
    let params = PatchParams::apply(MANAGER).force();
    match api.patch_status(&name, &params, &Patch::Apply(&patch)).await {
        Err(error) if !is_absent(&error) => {
            tracing::warn!(%error, name, "SourceReadable was not written: tried again with the next answer");
        }
        _ => {}
    }
}

fn condition(
    status: &str,
    reason: &str,
    message: &str,
    current: Option<&Condition>,
    generation: Option<i64>,
) -> Condition {
    let since = current.filter(|current| current.status == status).map_or_else(
        || Time(Timestamp::now()),
        |current| current.last_transition_time.clone(),
    );
    Condition {
        type_: SOURCE_READABLE.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: clip(message, MAX_MESSAGE),
        last_transition_time: since,
        observed_generation: generation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskgate_policy::source::Interest;

    fn key(item: &str) -> SourceKey {
        SourceKey {
            namespace: "team".into(),
            spawner: "fixer".into(),
            item: item.into(),
        }
    }

    fn said(health: &[(&str, Option<Trouble>, u32)]) -> Verdict {
        let policy = PolicyName::Cluster { name: "p".into() };
        let interest = Interest {
            policies: [policy.clone()].into(),
            ..Interest::default()
        };
        let interests = health.iter().map(|(item, ..)| (key(item), interest.clone())).collect();
        let health = health
            .iter()
            .map(|(item, trouble, failures)| {
                let health = Health {
                    trouble: trouble.clone(),
                    failures: *failures,
                    answered: true,
                };
                (key(item), health)
            })
            .collect();
        verdicts(&interests, &health).remove(&policy).unwrap()
    }

    #[test]
    fn one_trouble_is_told_and_a_passing_one_only_when_it_stays() {
        let down = || Some(Trouble::Unreachable("down".into()));
        let forbidden = || Some(Trouble::Forbidden("no".into()));
        assert_eq!(said(&[("1", None, 0)]), Verdict::Readable);
        assert_eq!(said(&[("1", down(), 2)]), Verdict::Unknown);
        assert_eq!(said(&[("1", None, 0), ("2", down(), 2)]), Verdict::Unknown);
        assert_eq!(said(&[("1", down(), 2), ("2", None, 0)]), Verdict::Unknown);
        assert_eq!(
            said(&[("1", None, 0), ("2", down(), 3)]),
            Verdict::Trouble(down().unwrap())
        );
        assert_eq!(
            said(&[("1", forbidden(), 1), ("2", None, 0)]),
            Verdict::Trouble(forbidden().unwrap())
        );
    }
}
