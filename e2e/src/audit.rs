//! The audit log: who asked the API server for what, and which webhooks were in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::wait::{PATIENCE, eventually};

/// Where each mutating webhook that was called leaves its mark, `mutated` or not.
const MUTATION: &str = "mutation.webhook.admission.k8s.io/";
/// What it changed.
const PATCH: &str = "patch.webhook.admission.k8s.io/";

/// The audit log of one control plane.
#[derive(Clone, Debug)]
pub struct Audit {
    path: PathBuf,
}

/// A point in the audit log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marker(u64);

/// A request that the API server has answered (or, a watch, begun to answer).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct AuditEvent {
    /// Identifies the request.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// `RequestReceived`, `ResponseStarted`, `ResponseComplete` or `Panic`.
    pub stage: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// Path and query.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// Who asked.
    pub user: AuditUser,
    /// Whom they acted as.
    pub impersonated_user: Option<AuditUser>,
    /// With which program.
    pub user_agent: String,
    /// About what; all empty for what is no resource.
    pub object_ref: ObjectRef,
    /// How it was answered.
    pub response_status: Option<AuditStatus>,
    /// The body, of writes.
    pub request_object: Option<Value>,
    /// What admission left behind.
    pub annotations: BTreeMap<String, String>,
}

/// Who asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct AuditUser {
    /// `system:serviceaccount:<namespace>:<name>`, or a name.
    pub username: String,
    /// Groups.
    pub groups: Vec<String>,
}

/// About what; empty strings where it does not apply.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct ObjectRef {
    /// API group.
    pub api_group: String,
    /// Version.
    pub api_version: String,
    /// Plural.
    pub resource: String,
    /// `status`, `scale`, …
    pub subresource: String,
    /// Namespace.
    pub namespace: String,
    /// Name; empty for a list, and for a create with a generated name.
    pub name: String,
}

/// How it was answered.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct AuditStatus {
    /// HTTP status.
    pub code: u16,
    /// Why not.
    pub message: String,
}

/// A mutating webhook that a request was sent to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct WebhookCall {
    /// Name of the `MutatingWebhookConfiguration`.
    pub configuration: String,
    /// `webhooks[].name`
    pub webhook: String,
    /// It changed the object.
    pub mutated: bool,
}

impl AuditEvent {
    /// The mutating webhooks that it was sent to, in the order of the calls; a second round
    /// (reinvocation) comes after the first. Validating webhooks leave no mark: see
    /// [`Metrics::webhook_requests`](crate::Metrics::webhook_requests).
    pub fn webhooks(&self) -> Vec<WebhookCall> {
        self.marks(MUTATION)
            .filter_map(|mark| serde_json::from_str(mark).ok())
            .collect()
    }

    /// It was sent to the mutating webhook of this name.
    pub fn was_sent_to(&self, webhook: &str) -> bool {
        self.webhooks().iter().any(|call| call.webhook == webhook)
    }

    /// What the webhook of this name changed, as JSON patches, one for each of its calls
    /// that changed anything.
    pub fn patches_of(&self, webhook: &str) -> Vec<Value> {
        self.marks(PATCH)
            .filter_map(|mark| serde_json::from_str::<Value>(mark).ok())
            .filter(|mark| mark["webhook"] == webhook)
            .map(|mark| mark["patch"].clone())
            .collect()
    }

    /// It asked for `dryRun=All`.
    pub fn is_dry_run(&self) -> bool {
        self.request_uri.contains("dryRun=All")
    }

    /// It may change something, by its verb.
    pub fn is_write(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "create" | "update" | "patch" | "delete" | "deletecollection"
        )
    }

    /// HTTP status of the answer; 0 if there is none.
    pub fn code(&self) -> u16 {
        self.response_status.as_ref().map_or(0, |status| status.code)
    }

    /// Who it was, after impersonation.
    pub fn username(&self) -> &str {
        &self.impersonated_user.as_ref().unwrap_or(&self.user).username
    }

    /// `create batch/jobs ns/name by alice → 201`, for people.
    pub fn summary(&self) -> String {
        let about = &self.object_ref;
        let path: Vec<&str> = [&about.api_group, &about.resource, &about.subresource]
            .into_iter()
            .filter(|part| !part.is_empty())
            .map(String::as_str)
            .collect();
        let (path, namespace, name) = (path.join("/"), &about.namespace, &about.name);
        let (verb, user, code) = (&self.verb, self.username(), self.code());
        format!("{verb} {path} {namespace}/{name} by {user} → {code}")
    }

    /// Keys are `<prefix>round_<r>_index_<i>`; indices have no leading zeros, so they are
    /// sorted as numbers.
    fn marks(&self, prefix: &str) -> impl Iterator<Item = &str> {
        let mut marks: Vec<_> = self
            .annotations
            .iter()
            .filter_map(|(key, value)| {
                let place = key.strip_prefix(prefix)?.strip_prefix("round_")?;
                let (round, index) = place.split_once("_index_")?;
                Some(((round.parse::<u32>().ok()?, index.parse::<u32>().ok()?), value.as_str()))
            })
            .collect();
        marks.sort_by_key(|(place, _)| *place);
        marks.into_iter().map(|(_, value)| value)
    }
}

impl Audit {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Now.
    ///
    /// # Errors
    /// If there is no audit log.
    pub fn mark(&self) -> anyhow::Result<Marker> {
        let meta = std::fs::metadata(&self.path).with_context(|| format!("no audit log at {}", self.path.display()))?;
        Ok(Marker(meta.len()))
    }

    /// Every request that was received since `marker` and before this call, complete with
    /// how it was answered.
    ///
    /// An answer can reach the client a moment before its line reaches the log. But that the
    /// request was received is written before it is worked on: so this waits until all that
    /// were received have been answered, and then nothing is missing.
    ///
    /// # Errors
    /// If the log cannot be read, or a request stays unanswered.
    pub async fn since(&self, marker: Marker) -> anyhow::Result<Vec<AuditEvent>> {
        let received: BTreeSet<String> = self
            .read(marker)?
            .into_iter()
            .filter(|event| event.stage == "RequestReceived")
            .map(|event| event.audit_id)
            .collect();
        eventually("all requests have been answered", PATIENCE, || async {
            let mut done = self.read(marker)?;
            done.retain(|event| event.stage != "RequestReceived" && received.contains(&event.audit_id));
            let answered: BTreeSet<&str> = done.iter().map(|e| e.audit_id.as_str()).collect();
            let open = received.iter().filter(|id| !answered.contains(id.as_str())).count();
            ensure!(open == 0, "{open} requests are unanswered");
            // A watch is told twice, when it begins and when it ends.
            let mut seen = BTreeSet::new();
            done.retain(|event| seen.insert(event.audit_id.clone()));
            Ok(done)
        })
        .await
    }

    fn read(&self, Marker(from): Marker) -> anyhow::Result<Vec<AuditEvent>> {
        let read = || -> anyhow::Result<Vec<AuditEvent>> {
            let mut file = std::fs::File::open(&self.path)?;
            file.seek(SeekFrom::Start(from))?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            // The last line may be only half written.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            whole.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
        };
        read().with_context(|| format!("reading {}", self.path.display()))
    }
}
