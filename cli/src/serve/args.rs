//! The flags of `taskgate serve`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum, builder::NonEmptyStringValueParser};
use jiff::SignedDuration;
use taskgate_api::{
    kelos_fields::{ControllerAccount, KelosWriters},
    kueue::ConfigRef,
};
use taskgate_certs::San;
use taskgate_webhook::{ConfigurationName, rules::CONFIGURATION};

use crate::{
    defaults::{CERTIFICATE, ISSUED, NAME, NAMESPACE},
    flags::{duration, host, interval, lifetime, log_filter, object_name, source_url},
};

/// Flags of `taskgate serve`. Each can also be given by the environment variable named beside it.
#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(after_help = "Examples:
  taskgate serve                                   as the Deployment does
  taskgate serve --kubeconfig ~/.kube/dev --no-leader-election --listen 127.0.0.1:9443")]
pub(crate) struct ServeArgs {
    /// The kubeconfig to use. Absent: $KUBECONFIG, else ~/.kube/config, else the pod's service account.
    #[arg(long, env = "TASKGATE_KUBECONFIG", value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Where admission is served, over TLS.
    #[arg(
        long,
        env = "TASKGATE_LISTEN",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:9443"
    )]
    pub(crate) listen: SocketAddr,
    /// Where /livez, /readyz and /metrics are served, without TLS.
    #[arg(
        long,
        env = "TASKGATE_ADMIN_LISTEN",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8080"
    )]
    pub(crate) admin_listen: SocketAddr,
    /// The namespace that taskgate runs in. Nothing in it is ever governed.
    #[arg(long, env = "TASKGATE_NAMESPACE", value_name = "NAME", default_value = NAMESPACE, value_parser = object_name)]
    pub(crate) namespace: String,
    /// The Service that the API server reaches taskgate through; the certificate is made for its names.
    #[arg(long, env = "TASKGATE_SERVICE", value_name = "NAME", default_value = NAME, value_parser = object_name)]
    pub(crate) service: String,
    /// Where the serving certificate comes from.
    #[arg(long, env = "TASKGATE_CERT_MODE", value_enum, default_value_t)]
    pub(crate) cert_mode: CertMode,
    /// The Secret in taskgate's namespace that holds the certificate. Where taskgate makes it, no other mode may name the same.
    #[arg(
        long,
        env = "TASKGATE_CERT_SECRET",
        value_name = "NAME",
        default_value = CERTIFICATE,
        default_value_if("cert_mode", "cert-manager", ISSUED),
        value_parser = object_name
    )]
    pub(crate) cert_secret: String,
    /// The folder with tls.crt, tls.key and ca.crt, for `--cert-mode files`.
    #[arg(
        long,
        env = "TASKGATE_CERT_DIR",
        value_name = "FOLDER",
        required_if_eq("cert_mode", "files")
    )]
    pub(crate) cert_dir: Option<PathBuf>,
    /// How long a self-signed CA lives. It is replaced when a third of that is left. Below an hour only for tests.
    #[arg(long, env = "TASKGATE_CA_LIFETIME", value_name = "DURATION", default_value = "87600h", value_parser = lifetime)]
    pub(crate) ca_lifetime: SignedDuration,
    /// How long a certificate of that CA lives. It is replaced when a third of that is left. Below an hour only for tests.
    #[arg(long, env = "TASKGATE_CERT_LIFETIME", value_name = "DURATION", default_value = "2160h", value_parser = lifetime)]
    pub(crate) cert_lifetime: SignedDuration,
    /// Further DNS names or IP addresses that the certificate is to be valid for.
    #[arg(long, env = "TASKGATE_CERT_NAMES", value_name = "NAME", value_delimiter = ',')]
    pub(crate) cert_names: Vec<San>,
    /// The CA, in PEM, that signs the certificate with which the API server calls. It is read again when it changes. Absent:
    /// every caller that reaches the port is answered.
    #[arg(long, env = "TASKGATE_CLIENT_CA", value_name = "FILE")]
    pub(crate) client_ca: Option<PathBuf>,
    /// Accept only certificates of that CA with one of these common names or DNS names. Absent: any.
    #[arg(
        long,
        env = "TASKGATE_CLIENT_NAMES",
        value_name = "NAME",
        value_delimiter = ',',
        requires = "client_ca"
    )]
    pub(crate) client_names: Vec<String>,
    /// Show /metrics only to users that the API server allows to `get` that path, by bearer token.
    #[arg(long, env = "TASKGATE_METRICS_AUTH")]
    pub(crate) metrics_auth: bool,
    /// The name of the webhook configurations, which has to sort before "kueue-".
    #[arg(long, env = "TASKGATE_CONFIGURATION", value_name = "NAME", default_value = CONFIGURATION)]
    pub(crate) configuration: ConfigurationName,
    /// Be ready although the webhook configurations do not have our CA: for registrations that another tool manages.
    #[arg(long, env = "TASKGATE_REGISTRATION_MANAGED_ELSEWHERE")]
    pub(crate) registration_managed_elsewhere: bool,
    /// How many reviews may be in flight, and half as many from one address; further ones are refused at once and the failure
    /// policy decides.
    #[arg(long, env = "TASKGATE_MAX_IN_FLIGHT", value_name = "COUNT", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) max_in_flight: u32,
    /// Run the controller without leader election: for a single replica. The Lease is the only object that is written while
    /// taskgate is idle.
    #[arg(long, env = "TASKGATE_NO_LEADER_ELECTION")]
    pub(crate) no_leader_election: bool,
    /// The identity of this replica in the Lease, unique among the replicas. Absent: the host name and the process ID. In a pod
    /// these are the same for a restarted container, which leads at once if it led before.
    #[arg(long, env = "TASKGATE_IDENTITY", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) identity: Option<String>,
    /// How many WorkItems a namespace may have; at the limit the oldest closed one is deleted.
    #[arg(
        long,
        env = "TASKGATE_WORK_ITEMS_PER_NAMESPACE",
        value_name = "COUNT",
        default_value_t = 5000
    )]
    pub(crate) work_items_per_namespace: usize,
    /// The shortest interval between two requests to an issue source about one item, however often the spawner polls. Below
    /// 30s only for tests.
    #[arg(long, env = "TASKGATE_SOURCE_MIN_INTERVAL", value_name = "DURATION", default_value = "30s", value_parser = interval)]
    pub(crate) source_min_interval: Duration,
    /// The API of github.com. The API of an Enterprise host is found from the Workspace's repository.
    #[arg(long, env = "TASKGATE_GITHUB_API", value_name = "URL", default_value = "https://api.github.com", value_parser = source_url)]
    pub(crate) github_api: String,
    /// The hosts of GitHub Enterprise that taskgate may ask, each with its port unless that is 443. A tenant can name any host
    /// in a Workspace; beside these taskgate asks --github-api and the GitHub proxy of the Workspace's own namespace.
    #[arg(long, env = "TASKGATE_SOURCE_HOSTS", value_name = "HOST", value_delimiter = ',', value_parser = host)]
    pub(crate) source_hosts: Vec<String>,
    /// The URL of a Workspace's GitHub proxy: {service} and {namespace} are filled in.
    #[arg(long, env = "TASKGATE_GHPROXY_URL", value_name = "URL", default_value = "http://{service}.{namespace}:8888", value_parser = source_url)]
    pub(crate) ghproxy_url: String,
    /// The ConfigMap with Kueue's configuration, which selects the namespaces that Kueue manages.
    #[arg(long, env = "TASKGATE_KUEUE_CONFIG", value_name = "NAMESPACE/NAME", default_value_t)]
    pub(crate) kueue_config: ConfigRef,
    /// The service account of Kelos' controller. Fields of `taskgate kelos-fields` that it drops are restored.
    #[arg(
        long,
        env = "TASKGATE_KELOS_CONTROLLER",
        value_name = "NAMESPACE/NAME",
        default_value_t
    )]
    pub(crate) kelos_controller: ControllerAccount,
    /// The name of the service account of Kelos' spawners, in each namespace.
    #[arg(long, env = "TASKGATE_KELOS_SPAWNER", value_name = "NAME", default_value = "kelos-spawner", value_parser = object_name)]
    pub(crate) kelos_spawner: String,
    /// Do without Kueue, as if it were not installed: no Job is queued, and its rights are not needed.
    #[arg(long, env = "TASKGATE_NO_KUEUE")]
    pub(crate) no_kueue: bool,
    /// Do without Foreman, as if it were not installed: no Workload is retried, and its rights are not needed.
    #[arg(long, env = "TASKGATE_NO_FOREMAN")]
    pub(crate) no_foreman: bool,
    /// Retry no Tasks: taskgate then creates none, and the right to do so is not needed.
    #[arg(long, env = "TASKGATE_NO_TASK_RETRY")]
    pub(crate) no_task_retry: bool,
    /// How long admission goes on after SIGTERM until the API server no longer calls this replica.
    #[arg(long, env = "TASKGATE_LAME_DUCK", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(crate) lame_duck: Duration,
    /// What is logged: a level, or directives as `taskgate_webhook=debug,info`.
    #[arg(long, env = "TASKGATE_LOG", value_name = "FILTER", default_value = "info", value_parser = log_filter)]
    pub(crate) log: String,
    /// The form of the log lines.
    #[arg(long, env = "TASKGATE_LOG_FORMAT", value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,
}

impl ServeArgs {
    /// The service accounts of Kelos that write whole objects.
    pub(crate) fn kelos_writers(&self) -> KelosWriters {
        KelosWriters {
            controller: self.kelos_controller.clone(),
            spawner: self.kelos_spawner.clone(),
        }
    }
}

/// The source of the serving certificate, and with it of the caBundle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CertMode {
    /// taskgate, with its own CA in the Secret; it writes the caBundle.
    #[default]
    SelfSigned,
    /// cert-manager, or another writer of the Secret; its CA injector writes the caBundle.
    CertManager,
    /// The writer of the files; taskgate does not write the caBundle.
    Files,
}

/// The form of the log lines.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// For a person at a terminal.
    Text,
}
