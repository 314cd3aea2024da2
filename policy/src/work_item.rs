//! Writes to a `WorkItem`: its name follows from its key, its status is written by taskgate alone, and what users ask of it with
//! annotations is stamped with who asked.

use serde::Deserialize as _;
use serde_json::Value;
use taskgate_api::{WorkItemSpec, keys, metadata::Metadata, retry_ledger::RetryOrder};

use crate::{
    Detail, Kind, Operation, Phase, Request, clip,
    decision::{Effect, Finding},
    identity::ItemIdentity,
    patch::Edit,
};

/// The longest name of a user that is recorded, in characters.
const MAX_USER: usize = 256;

/// What is wrong with, or has to be added to, the `WorkItem` of `request`.
pub(crate) fn findings(request: &Request<'_>) -> Vec<Finding<'static>> {
    let metadata = Metadata::of(request.object);
    let written = matches!(request.operation, Operation::Create | Operation::Update);
    if !written || metadata.is_terminating() {
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
    let item = request.object.pointer("/spec/item").and_then(Value::as_str);
    let detail = Detail::StatusOwned {
        item: item.unwrap_or_default().to_owned(),
    };
    vec![Finding::own(detail, Effect::Deny)]
}

/// A `WorkItem` is found by its name, so a wrong name would be one that nothing reads.
fn spec(request: &Request<'_>, metadata: Metadata<'_>) -> Option<Finding<'static>> {
    let spec = WorkItemSpec::deserialize(request.object.get("spec").unwrap_or(&Value::Null));
    let spec = match spec {
        Ok(spec) => spec,
        Err(error) => {
            let message = format!("spec: {error}");
            return Some(Finding::own(Detail::Unreadable { message }, Effect::Reject));
        }
    };
    let expected = ItemIdentity {
        key: spec.key,
        item: String::new(),
        spawner: None,
    }
    .work_item_name();
    let misnamed = metadata.name() != Some(expected.as_str());
    misnamed.then(|| Finding::own(Detail::WorkItemMisnamed { expected }, Effect::Reject))
}

/// Who asked for what is asked: whoever set or changed the request; taskgate itself only takes requests off.
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
        let detail = Detail::RequestStamped { key: by };
        findings.push(Finding::own(detail, Effect::Change(vec![edit])));
    }
    findings
}

/// Whether what is asked can be read, and is stamped with who asked.
fn requests(request: &Request<'_>) -> Option<Finding<'static>> {
    if request.own {
        return None;
    }
    let now = Metadata::of(request.object);
    let old = Metadata::of(request.old);
    for (key, by) in keys::REQUESTS {
        let differs = |key| old.annotation(key) != now.annotation(key);
        if (differs(key) || differs(by)) && now.annotation(by).map(ToOwned::to_owned) != asked_by(request, key, by) {
            return Some(Finding::own(Detail::RequestForged { key: by }, Effect::Deny));
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
