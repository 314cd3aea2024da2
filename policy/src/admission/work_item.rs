//! Validates writes to a `WorkItem`: its name follows from its key, only taskgate writes its status, and requests in its annotations
//! are stamped with the user.

use taskgate_api::{Lenient as _, WorkItemSpec, keys, metadata::Metadata, retry_status::RetryOrder};

use super::{spec_of, unreadable};
use crate::{
    decision::{Detail, Effect, Finding, Kind, Operation, Phase, Request},
    kubernetes::{Edit, MAX_USER, clip},
    matching::ItemIdentity,
};

/// What is wrong with, or has to be added to, the `WorkItem` of `request`.
pub(crate) fn findings(request: &Request<'_>) -> Vec<Finding<'static>> {
    let metadata = Metadata::of(request.object);
    let written = matches!(request.operation, Operation::Create | Operation::Update);
    if !written || Metadata::of(request.old).is_terminating() {
        return Vec::new();
    }
    match (request.kind, request.phase) {
        (Kind::WorkItemStatus, _) => status(request),
        (_, Phase::Mutating) => stamp(request),
        (_, Phase::Validating) => spec(request, metadata).into_iter().chain(requests(request)).collect(),
    }
}

fn status(request: &Request<'_>) -> Vec<Finding<'static>> {
    if request.own {
        return Vec::new();
    }
    let item = request.object.text("/spec/item");
    let detail = Detail::StatusOwned(item.unwrap_or_default().to_owned());
    vec![Finding::own(detail, Effect::Deny)]
}

/// A `WorkItem` is found by its name, so a wrong name would be one that nothing reads.
fn spec(request: &Request<'_>, metadata: Metadata<'_>) -> Option<Finding<'static>> {
    let spec = match spec_of::<WorkItemSpec>(request.object) {
        Ok(spec) => spec,
        Err(error) => return Some(unreadable(&error)),
    };
    let expected = ItemIdentity {
        key: spec.key,
        item: String::new(),
        spawner: None,
    }
    .work_item_name();
    let misnamed = metadata.name() != Some(expected.as_str());
    misnamed.then(|| Finding::own(Detail::WorkItemMisnamed(expected), Effect::Reject))
}

/// Who asked: the user who set or changed the request; taskgate itself only removes requests.
fn asked_by(request: &Request<'_>, key: &str, by: &str) -> Option<String> {
    let (old, new) = (Metadata::of(request.old), Metadata::of(request.object));
    let now = new.annotation(key)?;
    if old.annotation(key) == Some(now) && old.annotation(by).is_some() {
        return old.annotation(by).map(ToOwned::to_owned);
    }
    Some(clip(request.user, MAX_USER))
}

fn stamp(request: &Request<'_>) -> Vec<Finding<'static>> {
    if request.own {
        return Vec::new();
    }
    let now = Metadata::of(request.object);
    let mut findings = Vec::new();
    for (key, by) in keys::REQUESTS {
        let edit = match (asked_by(request, key, by), now.annotation(by)) {
            (Some(user), there) if there != Some(&user) => Edit::Annotation(by.to_owned(), user),
            (None, Some(_)) => Edit::RemoveAnnotation(by.to_owned()),
            _ => continue,
        };
        let detail = Detail::RequestStamped(by);
        findings.push(Finding::own(detail, Effect::Change(vec![edit])));
    }
    findings
}

/// Rejects a request that cannot be read, or that is stamped with another user.
fn requests(request: &Request<'_>) -> Option<Finding<'static>> {
    if request.own {
        return None;
    }
    let now = Metadata::of(request.object);
    let old = Metadata::of(request.old);
    for (key, by) in keys::REQUESTS {
        let differs = |key| old.annotation(key) != now.annotation(key);
        if (differs(key) || differs(by)) && now.annotation(by).map(ToOwned::to_owned) != asked_by(request, key, by) {
            return Some(Finding::own(Detail::RequestForged(by), Effect::Deny));
        }
    }
    let message = retry_order(request)?.err()?;
    let detail = Detail::RequestInvalid {
        key: keys::RETRY,
        message: clip(&message, 120),
    };
    Some(Finding::own(detail, Effect::Reject))
}

/// The order to run an object again, if `request` sets or changes one.
pub fn retry_order(request: &Request<'_>) -> Option<Result<RetryOrder, String>> {
    let (old, new) = (Metadata::of(request.old), Metadata::of(request.object));
    let order = new.annotation(keys::RETRY)?;
    (old.annotation(keys::RETRY) != Some(order)).then(|| RetryOrder::parse(order))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{Decision, assemble};
    use serde_json::{Value, json};

    fn item(annotations: &Value) -> Value {
        let name = ItemIdentity::new("fixer/42", "42", None).work_item_name();
        json!({"metadata": {"name": name, "annotations": annotations}, "spec": {"key": "fixer/42", "item": "42"}})
    }

    fn decided(kind: Kind, phase: Phase, old: &Value, new: &Value, own: bool) -> Decision {
        let request = Request {
            phase,
            kind,
            operation: Operation::Update,
            namespace: "team",
            object: new,
            sent: new,
            old,
            user: "ann",
            own,
            dry_run: false,
        };
        assemble(new, phase, findings(&request))
    }

    #[test]
    fn only_taskgate_writes_the_status() {
        let object = item(&json!({}));
        let decision = |own| decided(Kind::WorkItemStatus, Phase::Validating, &object, &object, own);
        let denial = decision(false).denial.unwrap();
        assert_eq!(denial.code, 403);
        for way in ["taskgate reset", "taskgate.dev/reset=", "delete it"] {
            assert!(
                denial.message.contains(way) && denial.message.chars().count() <= 256,
                "{denial:?}"
            );
        }
        assert!(decision(true).allowed());
    }

    #[test]
    fn who_asks_is_stamped_once_and_cannot_be_chosen() {
        let bare = item(&json!({}));
        for forged in [json!({}), json!({keys::RESET_BY: "bob"})] {
            let mut asked = item(&json!({keys::RESET: "fixed"}));
            json_patch::merge(&mut asked["metadata"]["annotations"], &forged);
            assert!(!decided(Kind::WorkItem, Phase::Validating, &bare, &asked, false).allowed());
            let stamped = decided(Kind::WorkItem, Phase::Mutating, &bare, &asked, false);
            json_patch::patch(&mut asked, &stamped.patch).unwrap();
            assert_eq!(
                asked["metadata"]["annotations"],
                json!({keys::RESET: "fixed", keys::RESET_BY: "ann"})
            );
            assert!(
                decided(Kind::WorkItem, Phase::Mutating, &bare, &asked, false)
                    .patch
                    .0
                    .is_empty()
            );
            assert!(decided(Kind::WorkItem, Phase::Validating, &bare, &asked, false).allowed());
        }
        // Who asked first stays, and goes with the request.
        let old = item(&json!({keys::RESET: "fixed", keys::RESET_BY: "bob"}));
        let mut noted = item(&json!({keys::RESET: "fixed", keys::RESET_BY: "bob", "note": "x"}));
        assert!(decided(Kind::WorkItem, Phase::Validating, &old, &noted, false).allowed());
        noted["metadata"]["annotations"][keys::RESET_BY] = "ann".into();
        assert!(!decided(Kind::WorkItem, Phase::Validating, &old, &noted, false).allowed());
        let mut withdrawn = item(&json!({keys::RESET_BY: "bob"}));
        let patch = decided(Kind::WorkItem, Phase::Mutating, &old, &withdrawn, false).patch;
        json_patch::patch(&mut withdrawn, &patch).unwrap();
        assert_eq!(withdrawn["metadata"]["annotations"], json!({}));
        // What admission did not see prevents no other write.
        let unstamped = item(&json!({keys::RESET: "fixed"}));
        let labelled = item(&json!({keys::RESET: "fixed", "note": "x"}));
        assert!(decided(Kind::WorkItem, Phase::Validating, &unstamped, &labelled, false).allowed());
    }

    #[test]
    fn an_order_that_cannot_be_read_is_refused() {
        let bare = item(&json!({}));
        let good = r#"{"kind": "Task", "name": "t", "uid": "u", "fromAttempt": 3}"#;
        for (order, allowed) in [
            (good.to_owned(), true),
            ("x".to_owned(), false),
            ("{}".to_owned(), false),
            (good.replace('3', "0"), false),
            (good.replace("\"u\"", "\"\""), false),
            (good.replace("fromAttempt", "odd"), false),
            (good.replace("\"t\"", &format!("\"{}\"", "t".repeat(2_000))), false),
        ] {
            let asked = item(&json!({keys::RETRY: order, keys::RETRY_BY: "ann"}));
            let decision = decided(Kind::WorkItem, Phase::Validating, &bare, &asked, false);
            assert_eq!(decision.allowed(), allowed, "{order}: {decision:?}");
        }
    }
}
