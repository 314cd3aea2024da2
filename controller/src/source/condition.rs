//! The condition `SourceReadable` on a policy: whether the items that it needs can be read at their sources.

use std::collections::BTreeMap;

use kube::api::{Patch, PatchParams};
use serde_json::json;
use taskgate_cache::StoredPolicy;
use taskgate_policy::{
    PolicyName, clip,
    source::{Interests, SourceKey},
};

use super::error::SourceError;
use crate::{context::Context, error::is_absent, status};

/// The condition's type.
const SOURCE_READABLE: &str = "SourceReadable";
/// The field manager of this condition, apart from the one of `Accepted`.
const MANAGER: &str = "taskgate-source";
/// How many failures in a row it takes until a transient error is written.
const PATIENCE: u32 = 3;
/// The longest message, in characters.
const MAX_MESSAGE: usize = 1024;

/// How reads of one item went.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadHealth {
    /// The last error; `None` after an answer, and before the first try.
    pub(super) error: Option<SourceError>,
    /// How often in a row it failed.
    pub(super) failures: u32,
    /// Whether the item was ever read.
    pub(super) answered: bool,
}

impl ReadHealth {
    pub(super) fn fail(&mut self, error: SourceError) {
        self.failures = self.failures.saturating_add(1);
        self.error = Some(error);
    }
}

/// What the condition of a policy states.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Readability {
    /// Not certain yet: the condition stays as it is.
    Unknown,
    Readable,
    Failing(SourceError),
}

/// Writes the condition of every policy where it changed. A policy that needs no item any more loses the condition of an error.
///
/// RBAC: `patch` on the status of both kinds of policies.
pub(super) async fn write_all(context: &Context, interests: &Interests, health: &BTreeMap<SourceKey, ReadHealth>) {
    let states = readability(interests, health);
    for policies in [context.cache.task_policies(), context.cache.cluster_task_policies()] {
        for policy in policies.all() {
            write(context, &policy, states.get(policy.name())).await;
        }
    }
}

/// The state of each policy that needs items. The message names one error, always the same while it lasts, so that it is written
/// once.
fn readability(interests: &Interests, health: &BTreeMap<SourceKey, ReadHealth>) -> BTreeMap<PolicyName, Readability> {
    let mut states = BTreeMap::new();
    for (key, interest) in interests {
        let health = health.get(key).cloned().unwrap_or_default();
        let state = match health.error {
            Some(error) if !error.is_transient() || health.failures >= PATIENCE => Readability::Failing(error),
            None if health.answered => Readability::Readable,
            _ => Readability::Unknown,
        };
        for policy in &interest.policies {
            let slot = states.entry(policy.clone()).or_insert_with(|| state.clone());
            match (&*slot, &state) {
                (Readability::Failing(_), _) => {}
                (_, Readability::Failing(_)) | (Readability::Readable, Readability::Unknown) => *slot = state.clone(),
                _ => {}
            }
        }
    }
    states
}

async fn write(context: &Context, policy: &StoredPolicy, state: Option<&Readability>) {
    let conditions = policy.status().map(|status| status.conditions.as_slice());
    let conditions = conditions.unwrap_or_default();
    let current = conditions.iter().find(|condition| condition.type_ == SOURCE_READABLE);
    let condition = |is_readable, reason, message: &str| {
        let (message, generation) = (clip(message, MAX_MESSAGE), Some(policy.generation()));
        let now = context.now();
        status::condition(SOURCE_READABLE, is_readable, reason, message, generation, current, now)
    };
    let wanted = match state {
        None if current.is_some_and(|current| current.status == "False") => None,
        None | Some(Readability::Unknown) => return,
        Some(Readability::Readable) => Some(condition(true, "Answered", "the sources answer")),
        Some(Readability::Failing(error)) => Some(condition(false, error.reason(), &error.to_string())),
    };
    if wanted.as_ref() == current {
        return;
    }
    let Some((api, kind, name)) = status::policy_api(&context.client, policy.name()) else {
        return;
    };
    let patch = json!({
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "status": {"conditions": wanted.iter().collect::<Vec<_>>()},
    });
    let params = PatchParams::apply(MANAGER).force();
    match api.patch_status(name, &params, &Patch::Apply(&patch)).await {
        Err(error) if !is_absent(&error) => {
            tracing::warn!(%error, name, "SourceReadable was not written: tried again with the next answer");
        }
        _ => {}
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

    fn state(health: &[(&str, Option<SourceError>, u32)]) -> Readability {
        let policy = PolicyName::Cluster { name: "p".into() };
        let interest = Interest {
            policies: [policy.clone()].into(),
            ..Interest::default()
        };
        let interests = health.iter().map(|(item, ..)| (key(item), interest.clone())).collect();
        let health = health
            .iter()
            .map(|(item, error, failures)| {
                let health = ReadHealth {
                    error: error.clone(),
                    failures: *failures,
                    answered: true,
                };
                (key(item), health)
            })
            .collect();
        readability(&interests, &health).remove(&policy).unwrap()
    }

    #[test]
    fn one_error_is_written_and_a_transient_one_only_when_it_lasts() {
        let down = || Some(SourceError::Unreachable("down".into()));
        let forbidden = || Some(SourceError::Forbidden("no".into()));
        assert_eq!(state(&[("1", None, 0)]), Readability::Readable);
        assert_eq!(state(&[("1", down(), 2)]), Readability::Unknown);
        assert_eq!(state(&[("1", None, 0), ("2", down(), 2)]), Readability::Unknown);
        assert_eq!(state(&[("1", down(), 2), ("2", None, 0)]), Readability::Unknown);
        assert_eq!(
            state(&[("1", None, 0), ("2", down(), 3)]),
            Readability::Failing(down().unwrap())
        );
        assert_eq!(
            state(&[("1", forbidden(), 1), ("2", None, 0)]),
            Readability::Failing(forbidden().unwrap())
        );
    }
}
