//! The command line. Values are parsed into types here, so that a wrong one stops the start with the flag's name (C24).

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;
use taskgate_api::kueue::ConfigRef;
use taskgate_certs::San;
use taskgate_webhook::{
    ClientTarget, ConfigurationName, FailurePolicy, Registration, TimeoutSeconds, rules::CONFIGURATION,
};
use tracing_subscriber::EnvFilter;

use crate::{
    commands::{
        cancel::CancelArgs,
        check::CheckArgs,
        disable::{DisableArgs, EnableArgs},
        render::RenderArgs,
        reset::ResetArgs,
        retry::RetryArgs,
        status::StatusArgs,
        test::TestArgs,
        uninstall::UninstallArgs,
    },
    logging::LogFormat,
};

/// The name of the Service and the prefix of everything else, unless the installation says otherwise.
pub(crate) const NAME: &str = "taskgate";
/// The namespace, unless the installation says otherwise.
pub(crate) const NAMESPACE: &str = "taskgate-system";
/// The Lease of the replicas, unless the installation says otherwise.
pub(crate) const LEASE: &str = "taskgate-controller";
/// The Secret with the certificate, unless the installation says otherwise.
pub(crate) const CERTIFICATE: &str = "taskgate-serving-cert";
/// The Secret with the certificate of cert-manager, unless the installation says otherwise.
pub(crate) const ISSUED: &str = "taskgate-tls";

/// The admission gate for clusters that run coding agents.
#[derive(Debug, Parser)]
#[command(name = "taskgate", version, about, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve admission and run the controller, until SIGTERM.
    Serve(Box<ServeArgs>),
    /// Print or write what is installed in a cluster.
    Manifests(ManifestsArgs),
    /// Tell what the cluster would do with objects: allow or deny, changed how, and why. Nothing is written.
    Check(Box<CheckArgs>),
    /// Run cases: files that say what is asked for, when, and what has to come of it.
    Test(TestArgs),
    /// Show what labels and annotations a policy gives a Task, and why.
    Render(Box<RenderArgs>),
    /// Forget the failures of items, so that they are tried again.
    Reset(ResetArgs),
    /// Cancel Tasks: their agents are stopped, and it counts neither as failure nor as success.
    Cancel(CancelArgs),
    /// Run failed Workloads and Tasks again, whatever their count says.
    Retry(RetryArgs),
    /// Remove taskgate, and let go of everything that it holds. Running it again finishes what was interrupted.
    Uninstall(UninstallArgs),
    /// Take taskgate out of the way: its webhooks are off and its controller rests.
    Disable(DisableArgs),
    /// Put taskgate back as it was before it was disabled.
    Enable(EnableArgs),
    /// Show whether taskgate is at work, what it governs, where each Task stands, and which items are stopped at what cost.
    Status(StatusArgs),
}

/// Flags of `taskgate serve`. Each can also be given by the environment variable named beside it.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// The kubeconfig to use. Absent: the pod's service account, else $KUBECONFIG.
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
    /// The webhook configurations whose caBundle is kept. It has to sort before "kueue-".
    #[arg(long, env = "TASKGATE_CONFIGURATION", value_name = "NAME", default_value = CONFIGURATION)]
    pub(crate) configuration: ConfigurationName,
    /// Be ready although the webhook configurations do not carry our CA: for registrations that somebody else manages.
    #[arg(long, env = "TASKGATE_REGISTRATION_MANAGED_ELSEWHERE")]
    pub(crate) registration_managed_elsewhere: bool,
    /// How many reviews may be in flight; further ones are refused at once and the failure policy decides.
    #[arg(long, env = "TASKGATE_MAX_IN_FLIGHT", value_name = "COUNT", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) max_in_flight: u32,
    /// Run the controller without asking other replicas: for a single one. The Lease that replicas share is the only thing
    /// that is written at rest.
    #[arg(long, env = "TASKGATE_NO_LEADER_ELECTION")]
    pub(crate) no_leader_election: bool,
    /// How many WorkItems a namespace may have; the oldest closed one makes room for another.
    #[arg(
        long,
        env = "TASKGATE_WORK_ITEMS_PER_NAMESPACE",
        value_name = "COUNT",
        default_value_t = 5000
    )]
    pub(crate) work_items_per_namespace: usize,
    /// A tracker is never asked about an item more often than this, however often the spawner polls. Below 30s only for
    /// tests.
    #[arg(long, env = "TASKGATE_SOURCE_MIN_INTERVAL", value_name = "DURATION", default_value = "30s", value_parser = interval)]
    pub(crate) source_min_interval: Duration,
    /// The API of github.com. The API of an Enterprise host is found from the Workspace's repository.
    #[arg(long, env = "TASKGATE_GITHUB_API", value_name = "URL", default_value = "https://api.github.com", value_parser = tracker_url)]
    pub(crate) github_api: String,
    /// Where the GitHub proxy of a Workspace is: {service} and {namespace} are filled in.
    #[arg(long, env = "TASKGATE_GHPROXY_URL", value_name = "URL", default_value = "http://{service}.{namespace}:8888", value_parser = tracker_url)]
    pub(crate) ghproxy_url: String,
    /// The ConfigMap with Kueue's configuration, which says which namespaces Kueue manages.
    #[arg(long, env = "TASKGATE_KUEUE_CONFIG", value_name = "NAMESPACE/NAME", default_value_t)]
    pub(crate) kueue_config: ConfigRef,
    /// How long admission goes on after SIGTERM while the API server learns that this replica is leaving.
    #[arg(long, env = "TASKGATE_LAME_DUCK", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(crate) lame_duck: Duration,
    /// What is logged: a level, or directives as `taskgate_webhook=debug,info`.
    #[arg(long, env = "TASKGATE_LOG", value_name = "FILTER", default_value = "info", value_parser = log_filter)]
    pub(crate) log: String,
    /// The form of the log lines.
    #[arg(long, env = "TASKGATE_LOG_FORMAT", value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,
}

/// Who provides the serving certificate, and with it the caBundle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CertMode {
    /// taskgate: a CA of its own in the Secret; it keeps the caBundle.
    #[default]
    SelfSigned,
    /// cert-manager, or whoever else writes the Secret; its CA injector keeps the caBundle.
    CertManager,
    /// Whoever writes the files; somebody else keeps the caBundle.
    Files,
}

#[derive(Args, Debug)]
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
    /// Print what disables taskgate by kubectl alone.
    Disable(RegistrationArgs),
    /// Print what enables it again by kubectl alone.
    Enable(RegistrationArgs),
    /// Write all generated manifests into a folder.
    Write(Folders),
    /// Compare a folder with what would be written; exit 1 when something is stale.
    Check(Folders),
}

/// Where generated files are.
#[derive(Args, Clone, Debug)]
pub(crate) struct Folders {
    /// The folder of the manifests.
    pub(crate) directory: PathBuf,
    /// The folder of the documentation. Absent: its generated pages are left out.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) docs: Option<PathBuf>,
}

/// How the API server is to reach taskgate.
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

/// The settings among the environment variables `names` that no flag knows: a misspelt one must not be ignored (C24).
///
/// Kubernetes puts variables of its own for each Service into the environment, and one may be called after us.
pub(crate) fn unknown_settings(names: impl Iterator<Item = String>) -> Vec<String> {
    let command = Cli::command();
    let known: Vec<_> = command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .filter_map(|arg| arg.get_env()?.to_str())
        .collect();
    let of_a_service =
        |name: &str| name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || name.contains("_PORT");
    names
        .filter(|name| name.starts_with("TASKGATE_") && !name.starts_with("TASKGATE_E2E_"))
        .filter(|name| !known.contains(&name.as_str()) && !of_a_service(name))
        .collect()
}

/// A DNS label: the form of a namespace's and a Service's name.
pub(crate) fn object_name(text: &str) -> Result<String, String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let legal = text.len() <= 63
        && text.starts_with(inner)
        && text.ends_with(inner)
        && text.chars().all(|c| inner(c) || c == '-');
    if legal {
        Ok(text.to_owned())
    } else {
        Err("not a DNS label: a-z, 0-9 and '-', at most 63 characters".to_owned())
    }
}

fn base_url(text: &str) -> Result<String, String> {
    let authority = text
        .strip_prefix("https://")
        .filter(|rest| !rest.is_empty() && !rest.contains(['/', '?', '#', '@']));
    authority
        .map(|_| text.to_owned())
        .ok_or_else(|| "not of the form https://HOST:PORT".to_owned())
}

/// A Go-style duration of at most ten minutes, such as `5s` or `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed: taskgate_api::Duration = text.parse().map_err(|error| format!("{error}"))?;
    if parsed.is_negative() {
        return Err("a duration cannot be negative".to_owned());
    }
    let duration = Duration::from(parsed);
    if duration > Duration::from_mins(10) {
        Err("at most 10m".to_owned())
    } else {
        Ok(duration)
    }
}

/// A duration of at least six seconds and at most a hundred years.
fn lifetime(text: &str) -> Result<SignedDuration, String> {
    let parsed: taskgate_api::Duration = text.parse().map_err(|error| format!("{error}"))?;
    let lifetime = if parsed.is_negative() {
        Duration::ZERO
    } else {
        parsed.into()
    };
    if (Duration::from_secs(6)..=Duration::from_hours(100 * 365 * 24)).contains(&lifetime) {
        SignedDuration::try_from(lifetime).map_err(|error| error.to_string())
    } else {
        Err("between 6s and 876000h".to_owned())
    }
}

/// `NAMESPACE/NAME`, both legal names.
fn certificate_name(text: &str) -> Result<String, String> {
    let (namespace, name) = text.split_once('/').ok_or("not of the form NAMESPACE/NAME")?;
    object_name(namespace)?;
    object_name(name)?;
    Ok(text.to_owned())
}

/// A duration between a second and ten minutes.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < Duration::from_secs(1) {
        return Err("at least 1s".to_owned());
    }
    Ok(interval)
}

/// The base of a tracker's API, without a slash at its end.
fn tracker_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_base = rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['?', '#', '@', ' ']));
    if is_base {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err("not of the form https://HOST[:PORT][/PATH]".to_owned())
    }
}

fn log_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_value_stops_the_start_with_the_name_of_the_flag() {
        for (flag, value) in [
            ("--listen", "nowhere"),
            ("--namespace", "No Namespace"),
            ("--service", ""),
            ("--cert-names", "a b"),
            ("--cert-mode", "both"),
            ("--ca-lifetime", "1s"),
            ("--cert-lifetime", "-1h"),
            ("--configuration", "taskgate"),
            ("--max-in-flight", "0"),
            ("--source-min-interval", "10ms"),
            ("--github-api", "api.github.com"),
            ("--ghproxy-url", "https://user:secret@proxy"),
            ("--lame-duck", "-1s"),
            ("--lame-duck", "1h"),
            ("--kueue-config", "kueue-system"),
            ("--log", "taskgate=shout=loud"),
            ("--log-format", "xml"),
        ] {
            let error = Cli::try_parse_from(["taskgate", "serve", &format!("{flag}={value}")]).unwrap_err();
            assert!(error.to_string().contains(flag), "{flag}={value}: {error}");
        }
        let error = Cli::try_parse_from(["taskgate", "serve", "--no-such-flag"]).unwrap_err();
        assert!(error.to_string().contains("--no-such-flag"));
    }

    #[test]
    fn what_is_to_be_reset_is_said_once() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map_err(|error| error.exit_code());
        for good in [
            "taskgate reset 42",
            "taskgate reset fixer/42 b-7-0 -n team --context prod --kubeconfig f --reason why --dry-run",
            "taskgate reset --all-open",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "taskgate reset",
            "taskgate reset 42 --all-open",
            "taskgate reset 42 -n No_Name",
            "taskgate reset 42 --no-such-flag",
        ] {
            assert_eq!(parse(bad).map(drop), Err(2), "{bad}");
        }
    }

    #[test]
    fn a_misspelt_setting_is_found_and_what_kubernetes_sets_is_not() {
        let names = [
            "TASKGATE_LISTEN",
            "TASKGATE_LISTEM",
            "TASKGATE_SERVICE",
            "TASKGATE_SERVICE_HOST",
            "PATH",
        ];
        let names = names.iter().chain(&[
            "TASKGATE_PORT_443_TCP_ADDR",
            "TASKGATE_METRICS_SERVICE_PORT_HTTP",
            "TASKGATE_E2E_KEEP",
        ]);
        assert_eq!(unknown_settings(names.map(ToString::to_string)), ["TASKGATE_LISTEM"]);
    }

    #[test]
    fn a_registration_url_has_no_path() {
        for url in ["http://127.0.0.1:1", "https://", "https://a/b", "127.0.0.1:1"] {
            assert!(base_url(url).is_err(), "{url}");
        }
        assert!(base_url("https://127.0.0.1:9443").is_ok());
    }
}
