//! What is read of a cluster, before anybody judges it.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use serde_json::Value;
use taskgate_api::kueue::ConfigRef;

use crate::{
    args::CertMode,
    rights::{Names, questions::Question},
};

/// Something that was read, or why it was not.
pub(super) type Seen<T> = Result<T, Unseen>;

/// Why something is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unseen {
    /// There is no such object, or no such kind.
    Absent,
    /// It may not be read, or the API server did not answer: in its own words.
    Refused(String),
}

/// Everything that was read.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// What time it is here.
    pub(super) now: Timestamp,
    pub(super) server: Server,
    pub(super) installation: Installation,
    /// The versions of each API group that are served.
    pub(super) groups: Seen<BTreeMap<String, Vec<String>>>,
    /// CustomResourceDefinitions, by name.
    pub(super) crds: BTreeMap<String, Seen<Value>>,
    /// All MutatingWebhookConfigurations.
    pub(super) mutating: Seen<Vec<Value>>,
    /// All ValidatingWebhookConfigurations.
    pub(super) validating: Seen<Vec<Value>>,
    pub(super) service: Seen<Value>,
    pub(super) certificate: Seen<Certificate>,
    /// The ConfigMap that disables taskgate.
    pub(super) switch: Seen<Value>,
    pub(super) deployment: Seen<Value>,
    /// The pods that the Deployment selects.
    pub(super) pods: Seen<Vec<Value>>,
    pub(super) lease: Seen<Value>,
    /// What taskgate's service account may not do of what it has to.
    pub(super) denied: Seen<HashSet<Question>>,
    /// Deployments of others, by name.
    pub(super) companions: BTreeMap<&'static str, Seen<Vec<Value>>>,
    pub(super) namespaces: Seen<Vec<Value>>,
    pub(super) policies: Seen<Vec<Value>>,
    pub(super) cluster_policies: Seen<Vec<Value>>,
    pub(super) spawners: Seen<Vec<Value>>,
    pub(super) tasks: Seen<Page>,
    pub(super) workloads: Seen<Page>,
    pub(super) kueue: Kueue,
    pub(super) probes: Probes,
}

/// The API server.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// As `v1.36.3`, with its two numbers.
    pub(super) version: (u32, u32, String),
    /// What time it said it was, when it was that time here. `None`: it did not say.
    pub(super) clock: Option<(Timestamp, Timestamp)>,
}

/// What an installation is called, and how it is run.
#[derive(Clone, Debug)]
pub(super) struct Installation {
    /// The version of this command.
    pub(super) version: &'static str,
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) configuration: String,
    /// The service account of the pods.
    pub(super) account: String,
    /// The Secret with the certificate; `None` where it comes from files.
    pub(super) secret: Option<String>,
    pub(super) mode: CertMode,
    /// Whether replicas elect a leader.
    pub(super) elects: bool,
    pub(super) names: Names,
    pub(super) kueue: ConfigRef,
    /// Why the flags of the Deployment are not understood; the usual ones are assumed.
    pub(super) problem: Option<String>,
}

/// The public part of the Secret with the certificate, PEM.
#[derive(Clone, Debug, Default)]
pub(super) struct Certificate {
    pub(super) chain: Option<Vec<u8>>,
    pub(super) authorities: Option<Vec<u8>>,
}

/// Objects of a kind that may be many.
#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    pub(super) objects: Vec<Value>,
    /// Whether there are more.
    pub(super) more: bool,
}

/// Of Kueue.
#[derive(Clone, Debug)]
pub(super) struct Kueue {
    /// The ConfigMap with its configuration.
    pub(super) config: Seen<Value>,
    pub(super) queues: Seen<Vec<Value>>,
    pub(super) classes: Seen<Vec<Value>>,
}

/// What came of asking the API server for what only taskgate answers in this way.
#[derive(Clone, Debug, Default)]
pub(super) struct Probes {
    /// A policy that cannot be applied.
    pub(super) validating: Answer,
    /// A Task with an annotation that taskgate takes away, in this namespace. `None`: there is no Kelos, or no namespace to ask in.
    pub(super) mutating: Option<(String, Answer)>,
}

/// Who answered a dry-run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Answer {
    /// taskgate.
    Taskgate,
    /// Nobody: it went through as it was, or nobody was asked yet.
    #[default]
    Nobody,
    /// The API server asked taskgate and got no answer.
    Failed(String),
    /// Somebody refused it before.
    Refused(String),
}
