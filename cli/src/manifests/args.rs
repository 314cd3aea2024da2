//! The flags of `taskgate manifests`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use taskgate_webhook::{ClientTarget, FailurePolicy, Registration, TimeoutSeconds};

use crate::{
    defaults::{NAME, NAMESPACE},
    flags::{base_url, certificate_name, object_name},
};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  taskgate manifests crds | kubectl apply --server-side -f -
  taskgate manifests registration --failure-policy fail | kubectl apply -f -
  taskgate manifests disable | kubectl apply --server-side --field-manager=taskgate-disable -f -")]
pub(crate) struct ManifestsArgs {
    #[command(subcommand)]
    pub(crate) command: ManifestsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ManifestsCommand {
    /// Print the CustomResourceDefinitions.
    Crds,
    /// Print the webhook configurations.
    Registration(RegistrationArgs),
    /// Print the objects that disable taskgate, for kubectl.
    Disable(RegistrationArgs),
    /// Print the objects that enable it again, for kubectl.
    Enable(RegistrationArgs),
    /// Write all generated manifests into a folder.
    Write(Folders),
    /// Compare a folder with what would be written; exit 1 when a file is stale.
    Check(Folders),
}

/// The folders of generated files.
#[derive(Args, Clone, Debug)]
pub(crate) struct Folders {
    /// The folder of the manifests.
    pub(crate) directory: PathBuf,
    /// The folder of the documentation. Absent: its generated pages are left out.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) docs: Option<PathBuf>,
}

/// The settings of the webhook configurations.
#[derive(Args, Clone, Debug)]
pub(crate) struct RegistrationArgs {
    /// The namespace that taskgate runs in.
    #[arg(long, value_name = "NAME", default_value = NAMESPACE, value_parser = object_name)]
    pub(crate) namespace: String,
    /// The Service in that namespace.
    #[arg(long, value_name = "NAME", default_value = NAME, value_parser = object_name)]
    pub(crate) service: String,
    /// Reach taskgate at this address instead of through the Service: for development outside a cluster.
    #[arg(long, value_name = "https://HOST:PORT", value_parser = base_url)]
    pub(crate) url: Option<String>,
    /// Ask cert-manager's CA injector for the caBundle: the Certificate whose CA it is.
    #[arg(long, value_name = "NAMESPACE/CERTIFICATE", value_parser = certificate_name)]
    pub(crate) inject_ca_from: Option<String>,
    /// What happens to Tasks and Jobs while taskgate does not answer.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) failure_policy: OnFailure,
    /// How many seconds the API server waits for a mutation, 1 to 5.
    #[arg(long, value_name = "SECONDS", default_value = "2")]
    pub(crate) mutating_timeout: TimeoutSeconds,
    /// How many seconds the API server waits for a validation, 1 to 5.
    #[arg(long, value_name = "SECONDS", default_value = "3")]
    pub(crate) validating_timeout: TimeoutSeconds,
}

/// What the API server does while taskgate does not answer.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum OnFailure {
    /// Tasks and Jobs pass ungoverned.
    #[default]
    Ignore,
    /// Tasks and Jobs cannot be created.
    Fail,
}

impl RegistrationArgs {
    /// The registration that these flags describe.
    pub(crate) fn registration(&self) -> Registration {
        let mut registration = Registration::of_service(&self.service, &self.namespace);
        if let Some(url) = &self.url {
            registration.client = ClientTarget::Url(url.clone());
        }
        registration.foreign_failure = match self.failure_policy {
            OnFailure::Ignore => FailurePolicy::Ignore,
            OnFailure::Fail => FailurePolicy::Fail,
        };
        registration.inject_ca_from.clone_from(&self.inject_ca_from);
        registration.mutating_timeout = self.mutating_timeout;
        registration.validating_timeout = self.validating_timeout;
        registration
    }
}
