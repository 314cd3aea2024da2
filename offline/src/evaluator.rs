//! Evaluates a write request in the order of the API server: pruning and defaults, the mutating webhooks (reinvoked where a
//! later one changed the object), the schema, the validating webhooks on the object to store.
//!
//! Only taskgate's own webhooks are called; changes and denials of others are unknown.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};
use taskgate_api::metadata::Metadata;
use taskgate_policy::{Operation, Phase, PolicyName, Reason};
use taskgate_webhook::evaluate;

use crate::{
    cluster_state::ClusterState,
    diff::changes,
    evaluation::{EvaluatedCall, Evaluation, EvaluationReason, WriteVerdict},
    schema::Schemas,
    webhooks::{InstalledWebhook, InstalledWebhooks, MatchOutcome},
    write_request::WriteRequest,
};

/// Evaluates write requests against a cluster state.
pub struct Evaluator {
    /// The cluster state.
    pub cluster: ClusterState,
    /// The webhooks of taskgate.
    pub webhooks: Arc<InstalledWebhooks>,
    /// The schemas of kinds.
    pub schemas: Arc<Schemas>,
    /// The time of the requests.
    pub now: Timestamp,
}

/// The evaluation of one request, in progress.
struct EvaluationRun<'a> {
    evaluator: &'a Evaluator,
    request: WriteRequest,
    namespace_labels: Option<BTreeMap<String, String>>,
    evaluation: Evaluation,
}

/// The effect of a call on the request.
enum CallEffect {
    /// It was not made, or changed nothing.
    None,
    /// It changed the object.
    Changed,
    /// It rejected the request.
    Rejected,
}

impl Evaluator {
    /// Evaluates `request`; `None` for a kind that no webhook rule names.
    pub async fn evaluate(&self, request: WriteRequest) -> Option<Evaluation> {
        let phases = [Phase::Mutating, Phase::Validating];
        if !phases
            .into_iter()
            .flat_map(|phase| self.webhooks.of_phase(phase))
            .any(|webhook| webhook.names_kind(&request))
        {
            return None;
        }
        let namespace = Some(request.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let mut run = EvaluationRun {
            evaluator: self,
            namespace_labels: namespace.map(|namespace| self.cluster.namespace_labels(namespace)),
            evaluation: Evaluation::of(&request),
            request,
        };
        run.run().await;
        Some(run.evaluation)
    }
}

impl EvaluationRun<'_> {
    async fn run(&mut self) {
        if self.writes_object() && !self.prune_and_default() {
            return;
        }
        let before = self.request.object.clone();
        if matches!(self.mutate().await, CallEffect::Rejected) {
            return;
        }
        if self.writes_object() {
            let changes = changes(&before, &self.request.object);
            self.evaluation.changes = changes.iter().map(ToString::to_string).collect();
            self.set_server_fields();
            self.evaluation.object_after = self.request.object.clone();
            let WriteRequest { kind, object, old, .. } = &self.request;
            let errors = self.evaluator.schemas.validate(kind, object, old);
            if !errors.is_empty() {
                self.evaluation.reject_invalid(422, errors);
                return;
            }
        }
        for webhook in self.evaluator.webhooks.of_phase(Phase::Validating) {
            // The API server calls all of them, and reports the first rejection.
            self.call(webhook, 0).await;
        }
        let sent = self.evaluation.calls.iter().any(|call| call.sent);
        if self.evaluation.verdict == WriteVerdict::Allowed && !sent {
            self.evaluation.verdict = WriteVerdict::NotSent;
        }
    }

    /// Whether the request creates or updates the object itself.
    fn writes_object(&self) -> bool {
        let writes = matches!(self.request.operation, Operation::Create | Operation::Update);
        writes && self.request.subresource.is_empty()
    }

    /// Before admission: rejects unknown fields, as kubectl requests it, and fills in defaults. Whether the request goes on.
    fn prune_and_default(&mut self) -> bool {
        let WriteRequest {
            kind, object, recorded, ..
        } = &mut self.request;
        let unknown = self.evaluator.schemas.prune_and_default(kind, object);
        if unknown.is_empty() || *recorded {
            return true;
        }
        let mut errors = unknown;
        errors.extend(self.evaluator.schemas.validate(kind, object, &Value::Null));
        self.evaluation.reject_invalid(400, errors);
        false
    }

    /// Between the phases: removes the status of a new object, and generates its name with a fixed suffix.
    fn set_server_fields(&mut self) {
        let WriteRequest {
            operation,
            object,
            name,
            ..
        } = &mut self.request;
        if *operation != Operation::Create {
            return;
        }
        let generated = Metadata::of(object).generate_name().map(|prefix| {
            let short: String = prefix.chars().take(58).collect();
            format!("{short}xxxxx")
        });
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        if let (true, Some(generated), Some(metadata)) = (name.is_empty(), generated, object.get_mut("metadata")) {
            metadata["name"] = json!(generated);
            *name = generated;
        }
    }

    /// Calls the mutating webhooks, and in a second round those before a webhook that changed the object.
    async fn mutate(&mut self) -> CallEffect {
        let webhooks: Vec<_> = self.evaluator.webhooks.of_phase(Phase::Mutating).collect();
        let mut called = Vec::new();
        let mut reinvoked = Vec::new();
        for webhook in webhooks {
            match self.call(webhook, 0).await {
                CallEffect::Rejected => return CallEffect::Rejected,
                CallEffect::Changed => reinvoked.append(&mut called),
                CallEffect::None => {}
            }
            if webhook.reinvoked && self.evaluation.was_sent(&webhook.name) {
                called.push(webhook);
            }
        }
        for webhook in reinvoked {
            if matches!(self.call(webhook, 1).await, CallEffect::Rejected) {
                return CallEffect::Rejected;
            }
        }
        CallEffect::None
    }

    async fn call(&mut self, webhook: &InstalledWebhook, round: u8) -> CallEffect {
        if !webhook.names_kind(&self.request) {
            return CallEffect::None;
        }
        let outcome = webhook.matches(&self.request, self.namespace_labels.as_ref());
        let mut call = EvaluatedCall::of(webhook, round, &outcome);
        let effect = match outcome {
            MatchOutcome::NotSent(_) => CallEffect::None,
            MatchOutcome::Failed(error) => self.fail(webhook, &error),
            MatchOutcome::Sent => self.review(webhook, &mut call).await,
        };
        self.evaluation.calls.push(call);
        effect
    }

    async fn review(&mut self, webhook: &InstalledWebhook, call: &mut EvaluatedCall) -> CallEffect {
        let kind = &self.request.kind;
        let Some(kind) = webhook.endpoint.kind_of(&kind.group, &kind.version, &kind.kind) else {
            return CallEffect::None;
        };
        let evaluator = self.evaluator;
        let review = self.request.review();
        let decision = match evaluate(&evaluator.cluster, webhook.endpoint, kind, &review, evaluator.now).await {
            Ok(decision) => decision,
            Err(error) => {
                call.failure = Some(error.to_string());
                return self.fail(webhook, &error.to_string());
            }
        };
        for warning in decision.warnings {
            if !self.evaluation.warnings.contains(&warning) {
                self.evaluation.warnings.push(warning);
            }
        }
        for reason in &decision.reasons {
            let because = evaluation_reason(reason, &self.request.namespace);
            if !self.evaluation.because.contains(&because) {
                self.evaluation.because.push(because);
            }
        }
        if let Some(denial) = decision.denial {
            self.evaluation.deny(&webhook.name, denial.code, denial.message);
            return CallEffect::Rejected;
        }
        if decision.patch.0.is_empty() {
            return CallEffect::None;
        }
        call.patch = json!(decision.patch);
        if let Err(error) = json_patch::patch(&mut self.request.object, &decision.patch) {
            let error = format!("the patch cannot be applied: {error}");
            call.failure = Some(error.clone());
            return self.fail(webhook, &error);
        }
        CallEffect::Changed
    }

    /// Applies the failure policy to a failed call.
    fn fail(&mut self, webhook: &InstalledWebhook, error: &str) -> CallEffect {
        if !webhook.fails_closed {
            return CallEffect::None;
        }
        self.evaluation.fail(&webhook.name, error);
        CallEffect::Rejected
    }
}

fn evaluation_reason(reason: &Reason, namespace: &str) -> EvaluationReason {
    let policy = reason.policy.as_ref().map(|policy| match policy {
        PolicyName::Namespaced { name, .. } => format!("TaskPolicy {namespace}/{name}"),
        PolicyName::Cluster { name } => format!("ClusterTaskPolicy {name}"),
    });
    EvaluationReason {
        policy,
        section: reason.section().as_str(),
        mode: reason.mode(),
        code: reason.code(),
        message: reason.message(),
    }
}
