//! What a Task waits for, and the command that unblocks it.
//!
//! Kueue may be the blocker without a trace: while its webhook is unavailable, the API server refuses every Job in the namespaces that
//! Kueue manages, and Kelos does not report it.

use anyhow::Result;
use k8s_openapi::api::{apps::v1::Deployment, batch::v1};
use kube::Api;
use serde_json::{Value, json};
use taskgate_api::{
    condition::{Condition, QUEUED},
    job::Job,
    kelos::{self, Task},
    keys,
    kueue::{ConfigRef, Workload},
    metadata::Metadata,
};

use super::{
    explanation::{Line, command},
    input::ExplainContext,
};
use crate::{
    cluster::{Connection, api_error},
    commands::snapshot::{Collection, DisplayState, KUEUE_DEPLOYMENT, TaskSummary},
    flags::DryRun,
};

/// The phase of a Task whose Job has not started.
const PENDING: &str = "Pending";
/// How many Jobs of the same queue are named.
const NAMED: usize = 5;
const CANCEL_RIGHT: &str = "patch and delete on tasks.kelos.dev";
/// The API server's words before the name of a webhook that does not answer.
const FAILED_CALL: &str = "failed calling webhook \"";
/// Kueue's webhooks for Jobs.
const WEBHOOKS: [&str; 2] = ["mjob.kb.io", "vjob.kb.io"];

/// What `task` waits for, in its state `summary`.
pub(super) fn lines(context: &ExplainContext<'_>, task: &Value, summary: &TaskSummary) -> Vec<Line> {
    match &summary.state {
        DisplayState::Queued => queued(context, task),
        DisplayState::Terminating => terminating(context, task),
        DisplayState::Phase(phase) if phase == kelos::WAITING => waiting(context, task),
        DisplayState::Phase(phase) if phase.is_empty() || phase == PENDING => pending(context, task),
        DisplayState::Phase(_) if Task::of(task).is_terminal() => Vec::new(),
        DisplayState::Phase(_) | DisplayState::Cancelling => not_started(context, task).into_iter().collect(),
        DisplayState::CircuitBroken | DisplayState::Cancelled => Vec::new(),
    }
}

/// Whether Kueue may keep the Task's Job from being created, or ignore it.
pub(super) fn may_be_kueue(context: &ExplainContext<'_>, task: &Value) -> bool {
    let view = Task::of(task);
    let has_no_job =
        matches!(view.phase(), "" | PENDING) && view.worker_pool().is_none() && context.job_of(task).is_none();
    let is_ignored = Condition::find(task, QUEUED)
        .is_some_and(|condition| condition.is_true() && condition.reason() == "NotNoticed");
    (has_no_job && !Metadata::of(task).is_terminating()) || is_ignored
}

/// Kelos lets the Task wait: for other Tasks, for its branch, or for a budget.
fn waiting(context: &ExplainContext<'_>, task: &Value) -> Vec<Line> {
    let view = Task::of(task);
    let depends = view.spec().and_then(|spec| spec.get("dependsOn")?.as_array());
    let depends = depends.into_iter().flatten().filter_map(Value::as_str);
    let mut lines: Vec<_> = depends.filter_map(|name| dependency(context, name)).collect();
    // Kelos checks the branch after the dependencies.
    if lines.is_empty() {
        lines.extend(branch(context, task));
    }
    if lines.is_empty() {
        lines.push(Line::waits(format!("in Kelos: {}", view.message())));
    }
    lines
}

fn dependency(context: &ExplainContext<'_>, name: &str) -> Option<Line> {
    let Some(other) = context.named(Collection::Tasks, name) else {
        let line = Line::waits(format!("for Task {name}, which does not exist"));
        return Some(line.advice("a user who may create Tasks can create it, or cancel this one"));
    };
    if Task::of(other).phase() == kelos::SUCCEEDED {
        return None;
    }
    let state = TaskSummary::of(other, context.item_of(other)).state;
    let explain = context.taskgate(&["explain", &format!("task/{name}")]);
    let line = Line::waits(format!("for Task {name} to succeed; it is {state}"));
    Some(line.command(explain, "get on tasks.kelos.dev"))
}

/// The Task that holds the branch. It may be in another namespace, as Kelos' lock has no namespace.
fn branch(context: &ExplainContext<'_>, task: &Value) -> Option<Line> {
    let view = Task::of(task);
    let branch = view.branch()?;
    let holder = named_holder(view.message()).or_else(|| holder(context, task))?;
    let Some(other) = context.named(Collection::Tasks, holder) else {
        let field = format!("metadata.name={holder}");
        let all = command(["kubectl", "get", "tasks.kelos.dev", "-A", "--field-selector", &field]);
        let line = Line::waits(format!(
            "for branch {branch}, which Task {holder} holds, and that one is not in this namespace"
        ));
        let line = line.advice("Kelos' locks have no namespace: Workspaces of the same name share their branches");
        return Some(line.command(all, "list on tasks.kelos.dev everywhere"));
    };
    let state = TaskSummary::of(other, context.item_of(other)).state;
    let line = Line::waits(format!(
        "for branch {branch}, which Task {holder} holds; that one is {state}"
    ));
    let line = line.advice("it continues when that one ends; to end it now:");
    Some(line.command(context.taskgate(&["cancel", holder]), CANCEL_RIGHT))
}

/// The Task in Kelos' message: `Waiting for branch "b" (locked by t)`, or `(queued behind t)`.
fn named_holder(message: &str) -> Option<&str> {
    let (_, rest) = message
        .split_once("(locked by ")
        .or_else(|| message.split_once("(queued behind "))?;
    rest.strip_suffix(')')
}

/// The Task of this namespace that holds the branch: a started one, else an older one that waits too.
fn holder<'a>(context: &ExplainContext<'a>, task: &Value) -> Option<&'a str> {
    let lock = |task: Task<'_>| {
        let workspace = task.workspace().unwrap_or_default().to_owned();
        Some((workspace, task.branch()?.to_owned()))
    };
    let wanted = lock(Task::of(task))?;
    let own = Metadata::of(task).uid();
    let others = || {
        context.objects(Collection::Tasks).filter(|other| {
            let view = Task::of(other);
            Metadata::of(other).uid() != own && !view.is_terminal() && lock(view).as_ref() == Some(&wanted)
        })
    };
    let started = others().find(|other| Task::of(other).phase() != kelos::WAITING);
    let created = Task::of(task).created();
    let older = || others().filter(|other| Task::of(other).created() < created);
    let holder = started.or_else(|| older().min_by_key(|other| Task::of(other).created()))?;
    Metadata::of(holder).name()
}

/// Kelos has not created the Job, or it has not started.
fn pending(context: &ExplainContext<'_>, task: &Value) -> Vec<Line> {
    let metadata = Metadata::of(task);
    if metadata.uid().is_none() {
        let line = Line::waits("to be created: it is in a file, and not in the cluster");
        return vec![line.advice("taskgate check shows the result of its admission")];
    }
    if let Some(pool) = Task::of(task).worker_pool() {
        return vec![Line::waits(format!("for a free runner of WorkerPool {pool}"))];
    }
    let Some(job) = context.job_of(task) else {
        if context.error(Collection::Jobs).is_some() {
            return vec![Line::waits("for its Job, which may not be read")];
        }
        let line = Line::waits("for Kelos to create its Job");
        return [line].into_iter().chain(context.kueue.clone()).collect();
    };
    if let Some(line) = not_started(context, task) {
        return vec![line];
    }
    let view = Job::of(job);
    if view.is_stopped() {
        return vec![Line::waits("for Kelos to notice that its Job was failed")];
    }
    if view.is_suspended() && view.queue().is_none() {
        let name = metadata.name().unwrap_or_default();
        let start = patch(context, "job", name, r#"{"spec":{"suspend":false}}"#);
        let line = Line::waits("as its Job is suspended, not by taskgate and without a queue");
        return vec![line.command(start, "patch on jobs")];
    }
    vec![Line::waits("for the pod of its Job to start")]
}

/// The Task is being deleted and has finalizers.
fn terminating(context: &ExplainContext<'_>, task: &Value) -> Vec<Line> {
    let line = |finalizer: &str| match finalizer {
        keys::ACCOUNTING => {
            Line::waits("for taskgate's controller to record its end: finalizer taskgate.dev/accounting")
                .advice("it does so at once when there is a leader, which this shows:")
                .command(context.taskgate(&["status"]), "get on taskgate's Lease")
        }
        kelos::FINALIZER => Line::waits("for Kelos' controller to clean up: finalizer kelos.dev/finalizer"),
        other => Line::waits(format!("for another controller to remove its finalizer {other}")),
    };
    Metadata::of(task).finalizers().map(line).collect()
}

/// The Task's Job is in a queue. The text is that of the Task's condition: Kueue's own, or a problem that Kueue does not report.
fn queued(context: &ExplainContext<'_>, task: &Value) -> Vec<Line> {
    let Some(condition) = Condition::find(task, QUEUED) else {
        return Vec::new();
    };
    let queue = context.job_of(task).and_then(|job| Job::of(job).queue());
    let queue = queue.map_or_else(|| "for its turn".to_owned(), |queue| format!("in LocalQueue {queue}"));
    let (reason, message) = (condition.reason(), condition.message());
    let line = with_remedy(
        context,
        task,
        reason,
        Line::waits(format!("{queue}: {reason}: {message}")),
    );
    [line].into_iter().chain(context.kueue.clone()).collect()
}

/// Kueue keeps the Task's Job from running although it does not wait in a queue.
fn not_started(context: &ExplainContext<'_>, task: &Value) -> Option<Line> {
    let condition = Condition::find(task, QUEUED).filter(|condition| condition.is_false())?;
    if !matches!(condition.reason(), "Deactivated" | "CannotStart") {
        return None;
    }
    let line = Line::waits(format!("as Kueue does not start its Job: {}", condition.message()));
    Some(with_remedy(context, task, condition.reason(), line))
}

/// `line` with what helps against `reason`.
fn with_remedy(context: &ExplainContext<'_>, task: &Value, reason: &str, line: Line) -> Line {
    const QUEUES: &str = "localqueues.kueue.x-k8s.io";
    let namespace = context.namespace;
    let name = Metadata::of(task).name().unwrap_or_default();
    let job = context.job_of(task);
    let queue = job.and_then(|job| Job::of(job).queue()).unwrap_or("?");
    let cancel = |line: Line| line.command(context.taskgate(&["cancel", name]), CANCEL_RIGHT);
    match reason {
        "KueueNotInstalled" => {
            line.advice("once Kueue is installed it starts; taskgate detects Kueue without a restart")
        }
        "NoSuchLocalQueue" => line.advice(format!(
            "a user who may create {QUEUES} can create {queue} in namespace {namespace}"
        )),
        "LocalQueueHeld" => {
            let resume = patch(context, QUEUES, queue, r#"{"spec":{"stopPolicy":"None"}}"#);
            line.command(resume, "patch on localqueues.kueue.x-k8s.io")
        }
        "LocalQueueInactive" => line
            .advice("its ClusterQueue is missing or does not work: Kueue's administrators can repair it")
            .command(
                context.kubectl(&["describe", QUEUES, queue]),
                "get on localqueues.kueue.x-k8s.io",
            ),
        "UnknownPriorityClass" => {
            let class = job.and_then(|job| Job::of(job).priority_class()).unwrap_or("?");
            line.advice(format!(
                "a user who may create workloadpriorityclasses.kueue.x-k8s.io can create {class}"
            ))
        }
        "NamespaceNotManaged" => cancel(line.advice(
            "Kueue's administrators can let it manage the namespace (managedJobsNamespaceSelector); to give up:",
        )),
        "QueueNameInvalid" => cancel(
            line.advice("correct queueName of the policy, or the Task's label, for later Tasks; to give this one up:"),
        ),
        "QueueLabelRemoved" => line
            .advice("Kelos creates the Job again, and taskgate queues it again")
            .command(context.kubectl(&["delete", "job", name]), "delete on jobs"),
        "Deactivated" => match job.and_then(|job| context.workload_of(job)) {
            Some(workload) => {
                let workload = workload.metadata().name().unwrap_or_default();
                let kind = "workloads.kueue.x-k8s.io";
                let activate = patch(context, kind, workload, r#"{"spec":{"active":true}}"#);
                line.command(activate, "patch on workloads.kueue.x-k8s.io")
            }
            None => line,
        },
        "CannotStart" => cancel(line.advice("to give it up:")),
        "WaitingForAdmission" | "Preempted" | "Evicted" => quota(context, queue, line),
        _ => line,
    }
}

/// The quota is used: by which Jobs of this namespace.
fn quota(context: &ExplainContext<'_>, queue: &str, line: Line) -> Line {
    let running: Vec<_> = context
        .objects(Collection::KueueWorkloads)
        .filter(|workload| workload.pointer("/spec/queueName").and_then(Value::as_str) == Some(queue))
        .map(Workload::of)
        .filter(|workload| workload.is("Admitted") && !workload.is("Finished"))
        .filter_map(|workload| Some(workload.job()?.name))
        .filter(|job| context.named(Collection::Tasks, job).is_some())
        .collect();
    let Some(first) = running.first() else {
        return line.advice("quota becomes free as other Jobs of its ClusterQueue end, or with a higher nominalQuota");
    };
    let named = running.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    let more = if running.len() > NAMED { " and others" } else { "" };
    line.advice(format!(
        "quota becomes free as Jobs of its ClusterQueue end (of this namespace: {named}{more}), or with a higher nominalQuota; to \
         end one now:"
    ))
    .command(context.taskgate(&["cancel", first]), CANCEL_RIGHT)
}

/// A `kubectl patch` command.
pub(super) fn patch(context: &ExplainContext<'_>, kind: &str, name: &str, patch: &str) -> String {
    context.kubectl(&["patch", kind, name, "--type=merge", "-p", patch])
}

/// The line that names Kueue, or another webhook, as the blocker of every Job: creates a Job as a dry run and reads Kueue's
/// Deployment. `None` where there is no problem, or the user may not see it. Errors when the API server does not answer.
///
/// RBAC: `create` on jobs, `get` on Kueue's Deployment.
pub(super) async fn kueue(connection: &Connection) -> Result<Option<Line>> {
    let Connection { client, namespace } = connection;
    let job: v1::Job = serde_json::from_value(json!({
        "metadata": {"generateName": "taskgate-explain-"},
        "spec": {"suspend": true, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "none", "image": "none"}],
        }}},
    }))?;
    let jobs = Api::<v1::Job>::namespaced(client.clone(), namespace);
    let refused = match jobs.create(&DryRun::SERVER.post(), &job).await {
        Ok(_) => None,
        Err(kube::Error::Api(status)) => refused_job(&status.message),
        Err(error) => return Err(api_error(error)),
    };
    if refused.is_some() {
        return Ok(refused);
    }
    let deployments = Api::<Deployment>::namespaced(client.clone(), &ConfigRef::default().namespace);
    match deployments.get_opt(KUEUE_DEPLOYMENT).await {
        Ok(found) => Ok(found.as_ref().and_then(unavailable)),
        Err(kube::Error::Api(_)) => Ok(None),
        Err(error) => Err(api_error(error)),
    }
}

/// The webhook that a refused Job's message names: the API server cannot call it, and therefore refuses Jobs.
fn refused_job(message: &str) -> Option<Line> {
    let (_, rest) = message.split_once(FAILED_CALL)?;
    let (webhook, _) = rest.split_once('"')?;
    if WEBHOOKS.contains(&webhook) {
        let text = format!(
            "the blocker is Kueue: the API server cannot call its webhook {webhook}, and refuses every Job until it can: {message}"
        );
        return Some(with_pods(
            Line::waits(text).advice("Kelos tries again automatically once Kueue is available"),
        ));
    }
    let text = format!(
        "the blocker is webhook {webhook}: the API server cannot call it, and refuses every Job until it can: {message}"
    );
    Some(Line::waits(text).advice("the administrator of that webhook can restore it"))
}

/// Kueue's Deployment, if it has no available replica.
pub(super) fn unavailable(deployment: &Deployment) -> Option<Line> {
    let available = deployment.status.as_ref().and_then(|status| status.available_replicas);
    if available.unwrap_or_default() > 0 {
        return None;
    }
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let namespace = ConfigRef::default().namespace;
    Some(with_pods(Line::waits(format!(
        "the blocker is Kueue: Deployment {namespace}/{KUEUE_DEPLOYMENT} has none of its {wanted} replicas available, so that neither \
         its controller nor its webhook works"
    ))))
}

fn with_pods(line: Line) -> Line {
    let pods = command(["kubectl", "-n", &ConfigRef::default().namespace, "get", "pods"]);
    line.command(pods, "get on Kueue's pods")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_unavailable_webhook() {
        let message = "Internal error occurred: failed calling webhook \"mjob.kb.io\": failed to call webhook: Post \
                       \"https://kueue-webhook-service.kueue-system.svc:443/mutate\": connection refused";
        let line = refused_job(message).expect("a webhook failed");
        assert!(
            line.text
                .starts_with("the blocker is Kueue: the API server cannot call its webhook mjob.kb.io, ")
        );
        assert!(line.text.ends_with("connection refused"), "{}", line.text);
        assert_eq!(line.command.as_deref(), Some("kubectl -n kueue-system get pods"));
        let other = refused_job("failed calling webhook \"jobs.example.com\": EOF").expect("a webhook failed");
        assert!(other.text.starts_with("the blocker is webhook jobs.example.com: "));
        for fine in [
            "jobs is forbidden",
            "exceeded quota",
            "admission webhook \"mjob.kb.io\" denied the request",
        ] {
            assert_eq!(refused_job(fine), None);
        }
    }

    #[test]
    fn a_deployment_without_an_available_replica_is_down() {
        let deployment = |status| -> Deployment {
            serde_json::from_value(json!({"metadata": {}, "spec": {
                "replicas": 2, "selector": {}, "template": {},
            }, "status": status}))
            .expect("a Deployment")
        };
        assert_eq!(unavailable(&deployment(json!({"availableReplicas": 1}))), None);
        let down = unavailable(&deployment(json!({}))).expect("it has none");
        assert!(down.text.contains("none of its 2 replicas"), "{}", down.text);
    }
}
