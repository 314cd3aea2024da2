//! What becomes of a write, in the order in which the API server goes about it: the object's form, the mutating webhooks
//! (once more where a later one changed the object), the schema, the validating webhooks on what will be stored.
//!
//! Only taskgate's own webhooks are called. What others would change or refuse is not known here.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};
use taskgate_api::metadata::Metadata;
use taskgate_policy::{Phase, PolicyName, Reason};
use taskgate_webhook::{ReviewOperation, judge};

use crate::{
    diff::changes,
    judgement::{Because, Call, Judgement, Verdict},
    proposal::Proposal,
    registration::{Hook, Registration, Sent},
    schema::Schemas,
    world::World,
};

/// Everything that verdicts rest on.
pub struct Judge {
    /// What is in the cluster.
    pub world: World,
    /// What is sent to taskgate.
    pub registration: Arc<Registration>,
    /// What the API server knows of kinds.
    pub schemas: Arc<Schemas>,
    /// What time it is.
    pub now: Timestamp,
}

/// One write on its way.
struct Course<'a> {
    judge: &'a Judge,
    proposal: Proposal,
    namespace_labels: Option<BTreeMap<String, String>>,
    judgement: Judgement,
}

/// What a call came to, for the way on.
enum Went {
    /// It was not made, or changed nothing.
    On,
    /// It changed the object.
    Changed,
    /// The write ends here.
    Ended,
}

impl Judge {
    /// What becomes of `proposal`; `None` for a kind that no rule of the registration names.
    pub async fn judge(&self, proposal: Proposal) -> Option<Judgement> {
        let phases = [Phase::Mutating, Phase::Validating];
        if !phases
            .into_iter()
            .flat_map(|phase| self.registration.hooks(phase))
            .any(|hook| hook.is_about(&proposal))
        {
            return None;
        }
        let namespace = Some(proposal.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let mut course = Course {
            judge: self,
            namespace_labels: namespace.map(|namespace| self.world.namespace_labels(namespace)),
            judgement: Judgement::of(&proposal),
            proposal,
        };
        course.run().await;
        Some(course.judgement)
    }
}

impl Course<'_> {
    async fn run(&mut self) {
        if self.is_written() && !self.takes_form() {
            return;
        }
        let before = self.proposal.object.clone();
        if matches!(self.mutate().await, Went::Ended) {
            return;
        }
        if self.is_written() {
            let changes = changes(&before, &self.proposal.object);
            self.judgement.changes = changes.iter().map(ToString::to_string).collect();
            self.prepare();
            self.judgement.object_after = self.proposal.object.clone();
            let Proposal { kind, object, old, .. } = &self.proposal;
            let flaws = self.judge.schemas.check(kind, object, old);
            if !flaws.is_empty() {
                self.judgement.refuse(422, flaws);
                return;
            }
        }
        for hook in self.judge.registration.hooks(Phase::Validating) {
            // The API server asks all of them, and the first refusal stands.
            self.call(hook, 0).await;
        }
        self.judgement.conclude();
    }

    fn is_written(&self) -> bool {
        let written = matches!(
            self.proposal.operation,
            ReviewOperation::Create | ReviewOperation::Update
        );
        written && self.proposal.subresource.is_empty()
    }

    /// Before admission: unknown fields, which kubectl has refused, and defaults. Whether the object has a form at all.
    fn takes_form(&mut self) -> bool {
        let Proposal {
            kind, object, recorded, ..
        } = &mut self.proposal;
        let unknown = self.judge.schemas.shape(kind, object);
        if unknown.is_empty() || *recorded {
            return true;
        }
        let mut flaws = unknown;
        flaws.extend(self.judge.schemas.check(kind, object, &Value::Null));
        self.judgement.refuse(400, flaws);
        false
    }

    /// Between the phases: the status goes, and a new object gets what the API server sets. A name that is to be generated
    /// gets any ending.
    fn prepare(&mut self) {
        let Proposal {
            operation,
            object,
            name,
            ..
        } = &mut self.proposal;
        if *operation != ReviewOperation::Create {
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

    /// A webhook that may be called again is, in a second round, when a later one changed the object.
    async fn mutate(&mut self) -> Went {
        let hooks: Vec<_> = self.judge.registration.hooks(Phase::Mutating).collect();
        let mut called = Vec::new();
        let mut again = Vec::new();
        for hook in hooks {
            match self.call(hook, 0).await {
                Went::Ended => return Went::Ended,
                Went::Changed => again.append(&mut called),
                Went::On => {}
            }
            if hook.reinvoked && self.judgement.was_sent(&hook.name) {
                called.push(hook);
            }
        }
        for hook in again {
            if matches!(self.call(hook, 1).await, Went::Ended) {
                return Went::Ended;
            }
        }
        Went::On
    }

    async fn call(&mut self, hook: &Hook, round: u8) -> Went {
        if !hook.is_about(&self.proposal) {
            return Went::On;
        }
        let sent = hook.sends(&self.proposal, self.namespace_labels.as_ref());
        let mut call = Call::of(hook, round, &sent);
        let went = match sent {
            Sent::No(_) => Went::On,
            Sent::Failed(error) => self.failed(hook, &error),
            Sent::Yes => self.ask(hook, &mut call).await,
        };
        self.judgement.calls.push(call);
        went
    }

    async fn ask(&mut self, hook: &Hook, call: &mut Call) -> Went {
        let kind = &self.proposal.kind;
        let Some(kind) = hook.endpoint.kind_of(&kind.group, &kind.version, &kind.kind) else {
            return Went::On;
        };
        let review = self.proposal.review();
        let decision = match judge(&self.judge.world, hook.endpoint, kind, &review, self.judge.now).await {
            Ok(decision) => decision,
            Err(error) => {
                call.failure = Some(error.to_string());
                return self.failed(hook, &error.to_string());
            }
        };
        for warning in decision.warnings {
            if !self.judgement.warnings.contains(&warning) {
                self.judgement.warnings.push(warning);
            }
        }
        for reason in &decision.reasons {
            let because = because(reason, &self.proposal.namespace);
            if !self.judgement.because.contains(&because) {
                self.judgement.because.push(because);
            }
        }
        if let Some(denial) = decision.denial {
            self.judgement.deny(&hook.name, denial.code, denial.message);
            return Went::Ended;
        }
        if decision.patch.0.is_empty() {
            return Went::On;
        }
        call.patch = json!(decision.patch);
        if let Err(error) = json_patch::patch(&mut self.proposal.object, &decision.patch) {
            let error = format!("the patch cannot be applied: {error}");
            call.failure = Some(error.clone());
            return self.failed(hook, &error);
        }
        Went::Changed
    }

    /// A call that fails refuses the write, or is as if it had not been made.
    fn failed(&mut self, hook: &Hook, error: &str) -> Went {
        if !hook.fails_closed {
            return Went::On;
        }
        self.judgement.fail(&hook.name, error);
        Went::Ended
    }
}

fn because(reason: &Reason, namespace: &str) -> Because {
    let policy = reason.policy.as_ref().map(|policy| match policy {
        PolicyName::Namespaced { name, .. } => format!("TaskPolicy {namespace}/{name}"),
        PolicyName::Cluster { name } => format!("ClusterTaskPolicy {name}"),
    });
    Because {
        policy,
        section: reason.section().as_str(),
        mode: reason.mode(),
        code: reason.code(),
        message: reason.message(),
    }
}

impl Judgement {
    /// The verdict, once every call is made.
    fn conclude(&mut self) {
        if self.verdict == Verdict::Allowed && !self.calls.iter().any(|call| call.sent) {
            self.verdict = Verdict::NotSent;
        }
    }
}
