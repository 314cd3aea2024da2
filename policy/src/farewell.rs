//! What becomes of a Task when taskgate is uninstalled.

use jiff::{SignedDuration, Timestamp};

use crate::TaskState;

/// What is to be done with a Task that taskgate leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Nothing of ours hangs on it.
    Nothing,
    /// The finalizer goes. The TTL that we kept goes back into the spec, where a Kelos lets it be changed.
    Release {
        /// The TTL in seconds.
        ttl: Option<u32>,
    },
    /// It would be gone, had Kelos kept its TTL.
    Expire,
    /// It was released before, and its spec would not take the TTL back: somebody has to delete it.
    Outlives {
        /// When its TTL has run out; `None` while it is under way.
        due: Option<Timestamp>,
    },
}

/// What is to be done with `task`. The answer for what it leads to is [`Farewell::Nothing`] or [`Farewell::Outlives`], so that
/// an uninstall that was interrupted is finished by another.
pub fn farewell(task: &TaskState, now: Timestamp) -> Farewell {
    let due = task.kept_ttl.filter(|_| task.is_terminal()).and_then(|ttl| {
        let ttl = SignedDuration::from_secs(i64::from(ttl));
        task.ttl_start(None, now).checked_add(ttl).ok()
    });
    match (task.deleting, task.held, task.kept_ttl) {
        (None, _, Some(_)) if due.is_some_and(|due| due <= now) => Farewell::Expire,
        (_, true, ttl) => Farewell::Release { ttl },
        (None, false, Some(_)) => Farewell::Outlives { due },
        _ => Farewell::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn task(held: bool, ttl: Option<&str>, status: &Value, deleting: bool) -> TaskState {
        let mut task = json!({
            "metadata": {"name": "t", "uid": "u", "creationTimestamp": "2026-11-21T10:00:00Z", "annotations": {}},
            "status": status,
        });
        if held {
            task["metadata"]["finalizers"] = json!(["taskgate.dev/accounting"]);
        }
        if let Some(ttl) = ttl {
            task["metadata"]["annotations"]["taskgate.dev/ttl-seconds-after-finished"] = ttl.into();
        }
        if deleting {
            task["metadata"]["deletionTimestamp"] = "2026-11-21T10:30:00Z".into();
        }
        TaskState::of(&task).unwrap()
    }

    #[test]
    fn every_task_is_let_go_and_what_would_be_gone_goes() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let ended = json!({"phase": "Failed", "completionTime": "2026-11-21T11:00:00Z"});
        let due = "2026-11-21T13:00:00Z".parse().ok();
        for (held, ttl, status, deleting, wanted) in [
            (false, None, json!({}), false, Farewell::Nothing),
            (true, None, json!({}), false, Farewell::Release { ttl: None }),
            (true, Some("60"), json!({}), false, Farewell::Release { ttl: Some(60) }),
            (true, Some("60"), ended.clone(), false, Farewell::Expire),
            (false, Some("60"), ended.clone(), false, Farewell::Expire),
            (
                true,
                Some("7200"),
                ended.clone(),
                false,
                Farewell::Release { ttl: Some(7200) },
            ),
            (false, Some("7200"), ended.clone(), false, Farewell::Outlives { due }),
            (false, Some("60"), json!({}), false, Farewell::Outlives { due: None }),
            (
                true,
                Some("60"),
                ended.clone(),
                true,
                Farewell::Release { ttl: Some(60) },
            ),
            (false, Some("60"), ended, true, Farewell::Nothing),
            (true, Some("soon"), json!({}), false, Farewell::Release { ttl: None }),
        ] {
            let state = task(held, ttl, &status, deleting);
            assert_eq!(farewell(&state, now), wanted, "{state:?}");
        }
    }
}
