//! Evaluates a write request in the order of the API server: decoding with pruning and defaults, the mutating webhooks (reinvoked where a
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
    schema::{FieldError, Schemas},
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

impl Evaluator {
    /// Evaluates `request`; `None` for a kind that no webhook rule names.
    pub async fn evaluate(&self, request: WriteRequest) -> Option<Evaluation> {
        if !self.webhooks.name_kind(&request) {
            return None;
        }
        let namespace = Some(request.review.namespace.as_str()).filter(|namespace| !namespace.is_empty());
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
        if self.writes_object() && !self.decode() {
            return;
        }
        let before = self.request.review.object.clone();
        self.mutate().await;
        if self.evaluation.verdict.is_rejection() {
            return;
        }
        if self.writes_object() {
            let changes = changes(&before, &self.request.review.object);
            self.evaluation.changes = changes.iter().map(ToString::to_string).collect();
            self.set_server_fields();
            self.evaluation.object_after = self.request.review.object.clone();
            let review = &self.request.review;
            let errors = self
                .evaluator
                .schemas
                .validate(&review.kind, &review.object, &review.old_object);
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
        let writes = matches!(self.request.review.operation, Operation::Create | Operation::Update);
        writes && self.request.review.sub_resource.is_empty()
    }

    /// Before admission: rejects what cannot be decoded and unknown fields, as kubectl requests it, and fills in defaults. Whether the
    /// request goes on.
    fn decode(&mut self) -> bool {
        let schemas = &self.evaluator.schemas;
        let review = &mut self.request.review;
        let mut errors = schemas.decode(&review.kind, &mut review.object);
        if errors.is_empty() || self.request.recorded {
            return true;
        }
        if errors.iter().all(FieldError::is_unknown_field) {
            errors.extend(schemas.validate(&review.kind, &review.object, &Value::Null));
        }
        self.evaluation.reject_invalid(400, errors);
        false
    }

    /// Between the phases: removes the status of a new object, and generates its name with a fixed suffix.
    fn set_server_fields(&mut self) {
        let review = &mut self.request.review;
        if review.operation != Operation::Create {
            return;
        }
        let generated = Metadata::of(&review.object).generate_name().map(|prefix| {
            let short: String = prefix.chars().take(58).collect();
            format!("{short}xxxxx")
        });
        if let Some(fields) = review.object.as_object_mut() {
            fields.remove("status");
        }
        let metadata = review.object.get_mut("metadata");
        if let (true, Some(generated), Some(metadata)) = (review.name.is_empty(), generated, metadata) {
            metadata["name"] = json!(generated);
            review.name = generated;
        }
    }

    /// Calls the mutating webhooks, and in a second round those before a webhook that changed the object, until one rejects the
    /// request.
    async fn mutate(&mut self) {
        let mut called = Vec::new();
        let mut reinvoked = Vec::new();
        for webhook in self.evaluator.webhooks.of_phase(Phase::Mutating) {
            if self.call(webhook, 0).await {
                reinvoked.append(&mut called);
            }
            if self.evaluation.verdict.is_rejection() {
                return;
            }
            if webhook.reinvoked && self.evaluation.was_sent(&webhook.name) {
                called.push(webhook);
            }
        }
        for webhook in reinvoked {
            self.call(webhook, 1).await;
            if self.evaluation.verdict.is_rejection() {
                return;
            }
        }
    }

    /// Calls `webhook` if it matches; whether it changed the object.
    async fn call(&mut self, webhook: &InstalledWebhook, round: u8) -> bool {
        if !webhook.names_kind(&self.request) {
            return false;
        }
        let outcome = webhook.matches(&self.request, self.namespace_labels.as_ref());
        let mut call = EvaluatedCall {
            webhook: webhook.name.clone(),
            round,
            sent: outcome == MatchOutcome::Sent,
            why_not: None,
            patch: Value::Null,
            failure: None,
        };
        match outcome {
            MatchOutcome::NotSent(why) => call.why_not = Some(why),
            MatchOutcome::Failed(error) => call.failure = Some(error),
            MatchOutcome::Sent => call.failure = self.review(webhook, &mut call).await.err(),
        }
        if let (Some(error), true) = (&call.failure, webhook.fails_closed) {
            let evaluation = &mut self.evaluation;
            evaluation.reject(WriteVerdict::Failed, &webhook.name, 500, error.clone());
        }
        let changed = call.failure.is_none() && !call.patch.is_null();
        self.evaluation.calls.push(call);
        changed
    }

    /// Takes the decision of `webhook` over; errors if there is none.
    async fn review(&mut self, webhook: &InstalledWebhook, call: &mut EvaluatedCall) -> Result<(), String> {
        let kind = &self.request.review.kind;
        let Some(kind) = webhook.endpoint.kind_of(&kind.group, &kind.version, &kind.kind) else {
            return Ok(());
        };
        let evaluator = self.evaluator;
        let review = &self.request.review;
        let decision = evaluate(&evaluator.cluster, webhook.endpoint, kind, review, evaluator.now)
            .await
            .map_err(|error| error.to_string())?;
        for warning in decision.warnings {
            if !self.evaluation.warnings.contains(&warning) {
                self.evaluation.warnings.push(warning);
            }
        }
        for reason in &decision.reasons {
            let because = evaluation_reason(reason);
            if !self.evaluation.because.contains(&because) {
                self.evaluation.because.push(because);
            }
        }
        if let Some(denial) = decision.denial {
            let verdict = WriteVerdict::Denied;
            self.evaluation
                .reject(verdict, &webhook.name, denial.code, denial.message);
        } else if !decision.patch.0.is_empty() {
            call.patch = json!(decision.patch);
            json_patch::patch(&mut self.request.review.object, &decision.patch)
                .map_err(|error| format!("the patch cannot be applied: {error}"))?;
        }
        Ok(())
    }
}

fn evaluation_reason(reason: &Reason) -> EvaluationReason {
    let policy = reason.policy.as_ref().map(PolicyName::title);
    EvaluationReason {
        policy,
        section: reason.section.into(),
        mode: reason.mode,
        code: reason.code(),
        message: reason.message(),
    }
}
