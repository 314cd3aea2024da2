//! How far a Job is in its queue, as its Task tells it: Kueue's own words where it has any (kueue §7), and ours
//! where it is silent ([`silent`](super::silent)).

use taskgate_api::{
    job::Job,
    keys,
    kueue::{GROUP, Workload},
};

use super::{
    NotQueued,
    silent::{noticed_by, queue_trap, without_workload},
    state::{Look, QueueReason, QueueScene, QueueState},
};

pub(super) fn waits(reason: QueueReason, message: impl Into<String>) -> QueueState {
    let message = message.into();
    QueueState {
        waits: true,
        reason,
        message,
        since: None,
    }
}

pub(super) fn done(reason: QueueReason, message: impl Into<String>) -> QueueState {
    QueueState {
        waits: false,
        ..waits(reason, message)
    }
}

/// Where the Job of `scene` stands.
///
/// Reasons of Kueue's conditions are passed on and never branched on: they change between its versions (kueue §4).
pub fn queue_state(scene: &QueueScene<'_>) -> Look {
    let job = Job::of(scene.job);
    if job.is_stopped() {
        return Look::Nothing;
    }
    if let (None, Some((why, message))) = (job.queue(), not_queued(job)) {
        let reason = match why {
            NotQueued::QueueNameInvalid => QueueReason::QueueNameInvalid,
            NotQueued::NamespaceNotManaged => QueueReason::NamespaceNotManaged,
        };
        return Look::State(QueueState {
            waits: job.is_suspended() && !job.has_ended(),
            ..waits(reason, message)
        });
    }
    match scene.workload.map(Workload::of) {
        Some(workload) => of_workload(scene, job, workload),
        None => without_workload(scene, job),
    }
}

fn not_queued(job: Job<'_>) -> Option<(NotQueued, &str)> {
    NotQueued::parse(job.metadata().annotation(keys::NOT_QUEUED)?)
}

fn of_workload(scene: &QueueScene<'_>, job: Job<'_>, workload: Workload<'_>) -> Look {
    let evicted = workload.condition("Evicted").filter(|evicted| evicted.is_true());
    if let (None, Some(admitted)) = (
        evicted,
        workload.condition("Admitted").filter(|admitted| admitted.is_true()),
    ) {
        let by = workload.cluster_queue().unwrap_or("its ClusterQueue");
        return Look::State(QueueState {
            since: admitted.since(),
            ..done(QueueReason::Admitted, format!("admitted by ClusterQueue {by}"))
        });
    }
    if job.has_ended() {
        return Look::State(QueueState::ended());
    }
    let name = workload.metadata().name().unwrap_or_default();
    if job.queue().is_none() {
        let message = format!(
            "somebody removed the Job's queue label: Kueue will not start it, and its Workload {name} may hold quota; \
             delete the Job"
        );
        return Look::State(waits(QueueReason::QueueLabelRemoved, message));
    }
    if let Some(finished) = workload.condition("Finished").filter(|finished| finished.is_true()) {
        let message = format!("Kueue will never start the Job: {}", finished.message());
        return Look::State(done(QueueReason::CannotStart, message));
    }
    if !workload.is_active() {
        let namespace = workload.metadata().namespace().unwrap_or_default();
        let why = evicted
            .map(|evicted| format!(": {}", evicted.message()))
            .unwrap_or_default();
        let message = format!(
            "Workload {name} is deactivated{why}; to start the Job again: kubectl -n {namespace} patch workload.{GROUP} {name} \
             --type=merge -p '{{\"spec\":{{\"active\":true}}}}'"
        );
        return Look::State(done(QueueReason::Deactivated, message));
    }
    if let Some(evicted) = evicted {
        let reason = if workload.is("Preempted") {
            QueueReason::Preempted
        } else {
            QueueReason::Evicted
        };
        return Look::State(QueueState {
            since: evicted.since(),
            ..waits(reason, evicted.message())
        });
    }
    if let Some(trap) = queue_trap(scene, job) {
        return Look::State(trap);
    }
    match workload.condition("QuotaReserved") {
        Some(reserved) if reserved.is_true() => {
            let checks: Vec<_> = workload
                .pending_checks()
                .map(|(name, message)| format!("{name} {message}").trim_end().to_owned())
                .collect();
            let message = format!("waits for admission checks: {}", checks.join(", "));
            Look::State(waits(QueueReason::WaitingForAdmission, message))
        }
        Some(pending) => Look::State(waits(QueueReason::WaitingForAdmission, pending.message())),
        None if scene.now < noticed_by(scene, job) => Look::Later(noticed_by(scene, job)),
        // Kueue says nothing to a Job behind one of the same size that does not fit (seen with 0.18).
        None => {
            let queue = job.queue().unwrap_or_default();
            let message = format!("waits in LocalQueue {queue} behind others: Kueue has not tried it yet");
            Look::State(waits(QueueReason::WaitingForAdmission, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::queue::Installed;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::new(1_800_000_000 + seconds, 0).unwrap()
    }

    fn job() -> Value {
        json!({
            "metadata": {"name": "a", "namespace": "ns", "creationTimestamp": at(0).to_string(),
                "labels": {"kueue.x-k8s.io/queue-name": "agents", "kueue.x-k8s.io/priority-class": "high"}},
            "spec": {"suspend": true},
        })
    }

    fn workload(conditions: &Value) -> Value {
        json!({
            "metadata": {"name": "job-a", "namespace": "ns"},
            "status": {"conditions": conditions, "admission": {"clusterQueue": "all"}},
        })
    }

    fn is(kind: &str, status: &str, message: &str) -> Value {
        json!({"type": kind, "status": status, "reason": "Any", "message": message, "lastTransitionTime": at(5).to_string()})
    }

    fn look(job: &Value, workload: Option<&Value>, kueue: Option<Installed<'_>>, now: i64) -> Look {
        let now = at(now);
        queue_state(&QueueScene {
            job,
            workload,
            kueue,
            now,
        })
    }

    fn word(look: &Look) -> (bool, &'static str) {
        match look {
            Look::State(state) => (state.waits, state.reason.as_str()),
            Look::Later(_) => (true, "later"),
            Look::Nothing => (false, "nothing"),
        }
    }

    #[test]
    fn what_kueue_says_is_passed_on() {
        let queue = json!({"status": {"conditions": [is("Active", "True", "")]}});
        let kueue = Installed {
            since: at(-99),
            local_queue: Some(&queue),
            has_class: true,
            manages_namespace: None,
        };
        let gone = || vec![is("Evicted", "True", "to make room"), is("Admitted", "False", "")];
        for (conditions, expected, message) in [
            (
                vec![is("QuotaReserved", "False", "no room")],
                (true, "WaitingForAdmission"),
                "no room",
            ),
            (
                vec![is("QuotaReserved", "True", "")],
                (true, "WaitingForAdmission"),
                "waits for admission checks: ",
            ),
            (
                vec![is("Admitted", "True", "")],
                (false, "Admitted"),
                "admitted by ClusterQueue all",
            ),
            (gone(), (true, "Evicted"), "to make room"),
            (
                [gone(), vec![is("Preempted", "True", "")]].concat(),
                (true, "Preempted"),
                "to make room",
            ),
            (
                vec![is("Evicted", "False", ""), is("Admitted", "True", "")],
                (false, "Admitted"),
                "admitted by ClusterQueue all",
            ),
            (
                vec![is("Finished", "True", "odd")],
                (false, "CannotStart"),
                "Kueue will never start the Job: odd",
            ),
        ] {
            let workload = workload(&json!(conditions));
            let look = look(&job(), Some(&workload), Some(kueue), 1);
            assert_eq!(word(&look), expected, "{conditions:?}");
            let Look::State(state) = look else { unreachable!() };
            assert_eq!(state.message, message);
        }
        let silent = workload(&json!([]));
        assert_eq!(look(&job(), Some(&silent), Some(kueue), 1), Look::Later(at(10)));
        assert_eq!(
            word(&look(&job(), Some(&silent), Some(kueue), 10)),
            (true, "WaitingForAdmission")
        );
        let mut off = workload(&json!(gone()));
        off["spec"] = json!({"active": false});
        assert_eq!(word(&look(&job(), Some(&off), Some(kueue), 1)), (false, "Deactivated"));
    }

    #[test]
    fn where_kueue_is_silent_the_trap_has_a_name() {
        let (queue, held) = (json!({}), json!({"spec": {"stopPolicy": "Hold"}}));
        let inactive = json!({"status": {"conditions": [is("Active", "False", "no ClusterQueue")]}});
        let kueue = |queue, has_class, manages_namespace| {
            Some(Installed {
                since: at(-99),
                local_queue: queue,
                has_class,
                manages_namespace,
            })
        };
        for (kueue, now, expected) in [
            (None, 0, "KueueNotInstalled"),
            (kueue(None, true, None), 0, "NoSuchLocalQueue"),
            (kueue(Some(&held), true, None), 0, "LocalQueueHeld"),
            (kueue(Some(&inactive), true, None), 0, "LocalQueueInactive"),
            (kueue(Some(&queue), false, None), 0, "UnknownPriorityClass"),
            (kueue(Some(&queue), true, None), 9, "later"),
            (kueue(Some(&queue), true, Some(false)), 10, "NamespaceNotManaged"),
            (kueue(Some(&queue), true, None), 10, "NotNoticed"),
        ] {
            assert_eq!(word(&look(&job(), None, kueue, now)), (true, expected));
        }
    }

    #[test]
    fn a_job_that_has_left_its_queue() {
        let mut ended = job();
        ended["status"] = json!({"conditions": [{"type": "Failed", "status": "True"}]});
        assert_eq!(word(&look(&ended, None, None, 0)), (false, "Ended"));
        let admitted = workload(&json!([is("Admitted", "True", "")]));
        assert_eq!(word(&look(&ended, Some(&admitted), None, 0)), (false, "Admitted"));
        let mut running = job();
        running["spec"]["suspend"] = json!(false);
        assert_eq!(word(&look(&running, None, None, 0)), (false, "StartedByHand"));
        let mut bare = job();
        bare["metadata"]["labels"] = json!({});
        assert_eq!(word(&look(&bare, None, None, 0)), (false, "nothing"));
        let pending = workload(&json!([is("QuotaReserved", "False", "")]));
        assert_eq!(word(&look(&bare, Some(&pending), None, 0)), (true, "QueueLabelRemoved"));
        bare["metadata"]["annotations"] = json!({keys::NOT_QUEUED: "QueueNameInvalid: queue name: none"});
        assert_eq!(word(&look(&bare, None, None, 0)), (true, "QueueNameInvalid"));
        bare["spec"]["suspend"] = json!(false);
        bare["metadata"]["annotations"] = json!({keys::NOT_QUEUED: "NamespaceNotManaged: so it is"});
        assert_eq!(word(&look(&bare, None, None, 0)), (false, "NamespaceNotManaged"));
    }
}
