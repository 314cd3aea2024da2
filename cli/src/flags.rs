//! The flags that commands share, and the parsers of flag values: a wrong value stops the start with the flag's name.

use std::{
    io::{self, IsTerminal as _, Read as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use jiff::SignedDuration;
use kube::api::{DeleteParams, PatchParams, PostParams};
use taskgate_webhook::{ConfigurationName, rules::CONFIGURATION};
use tracing_subscriber::EnvFilter;

use crate::{exit::UsageError, output};

/// Which cluster, and as which user: kubectl's flags, with kubectl's meaning.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ClusterArgs {
    /// The kubeconfig to use. Absent: $KUBECONFIG, else ~/.kube/config, else the pod's service account.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Absent: its current one.
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The user to impersonate.
    #[arg(long = "as", value_name = "USER")]
    pub(crate) as_user: Option<String>,
    /// A group to impersonate; may be given several times.
    #[arg(long = "as-group", value_name = "GROUP", requires = "as_user")]
    pub(crate) as_groups: Vec<String>,
    /// How long one request may take, such as 5s; 0: without limit. Absent: 30s.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) request_timeout: Option<Duration>,
}

/// Which cluster, and which namespace of it.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ConnectionArgs {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// The namespace of the objects. Absent: that of the context, else "default".
    #[arg(short, long, value_name = "NAME", value_parser = object_name)]
    pub(crate) namespace: Option<String>,
}

impl ConnectionArgs {
    /// The same, without impersonation: for commands that use `--as` as an input.
    pub(crate) fn without_impersonation(&self) -> Self {
        let mut args = self.clone();
        args.cluster.as_user = None;
        args.cluster.as_groups.clear();
        args
    }
}

/// Which installation of taskgate.
#[derive(Args, Clone, Debug)]
pub(crate) struct InstallationArgs {
    /// The namespace that taskgate runs in. Absent: that of the installation with taskgate's label, else "taskgate-system".
    #[arg(long, value_name = "NAME", value_parser = object_name)]
    pub(crate) taskgate_namespace: Option<String>,
    /// The name of its webhook configurations.
    #[arg(long, value_name = "NAME", default_value = CONFIGURATION)]
    pub(crate) configuration: ConfigurationName,
}

/// The flag of commands that write.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct DryRun {
    /// Change nothing. Without a value: server.
    #[arg(long, value_enum, value_name = "STRATEGY", num_args = 0..=1, require_equals = true, default_value_t, default_missing_value = "server")]
    dry_run: DryRunStrategy,
}

/// What a command that writes does instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum DryRunStrategy {
    /// It writes.
    #[default]
    None,
    /// It prints what it would write.
    Client,
    /// The API server, with admission, evaluates the writes and stores nothing.
    Server,
}

impl DryRun {
    /// A dry run on the API server.
    pub(crate) const SERVER: Self = Self {
        dry_run: DryRunStrategy::Server,
    };

    /// Whether nothing is changed.
    pub(crate) fn is_on(self) -> bool {
        self.dry_run != DryRunStrategy::None
    }

    /// Whether no write is sent, not even as a dry run.
    pub(crate) fn is_client(self) -> bool {
        self.dry_run == DryRunStrategy::Client
    }

    pub(crate) fn post(self) -> PostParams {
        PostParams {
            dry_run: self.is_on(),
            ..PostParams::default()
        }
    }

    pub(crate) fn patch(self, params: PatchParams) -> PatchParams {
        PatchParams {
            dry_run: self.is_on(),
            ..params
        }
    }

    pub(crate) fn delete(self, params: DeleteParams) -> DeleteParams {
        DeleteParams {
            dry_run: self.is_on(),
            ..params
        }
    }

    /// The end of a line that reports a change.
    pub(crate) fn suffix(self) -> &'static str {
        if self.is_on() { " (dry run)" } else { "" }
    }
}

/// The flag of commands that ask before they act.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Confirmation {
    /// Do not ask for confirmation. Required where standard input is no terminal.
    #[arg(short, long)]
    yes: bool,
}

impl Confirmation {
    /// Asks the user whether to do `what`. Errors when the answer is not `y` or `yes`, and where no user can be asked.
    pub(crate) fn ask(self, what: &str) -> Result<()> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            let usage = format!("{what}: standard input is no terminal to confirm this on; pass --yes");
            bail!(UsageError(usage));
        }
        output::print_stderr(&format!("{what}? [y/N] "));
        let mut answer = Vec::new();
        for byte in io::stdin().lock().take(16).bytes() {
            match byte.context("reading the answer")? {
                b'\n' => break,
                byte => answer.push(byte),
            }
        }
        match answer.trim_ascii().to_ascii_lowercase().as_slice() {
            b"y" | b"yes" => Ok(()),
            _ => bail!("nothing was changed"),
        }
    }
}

/// The flag of commands whose result may be only warnings.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct WarningsArgs {
    /// The exit code when there are warnings and nothing worse.
    #[arg(long, value_name = "CODE", default_value_t = Self::DEFAULT)]
    pub(crate) warnings_exit_code: u8,
}

impl WarningsArgs {
    /// The exit code without the flag.
    pub(crate) const DEFAULT: u8 = 3;
}

/// A DNS label: the form of a namespace's and a Service's name.
pub(crate) fn object_name(text: &str) -> Result<String, String> {
    if text.len() <= 63 && !text.contains('.') && taskgate_api::is_object_name(text) {
        Ok(text.to_owned())
    } else {
        Err("not a DNS label: a-z, 0-9 and '-', at most 63 characters".to_owned())
    }
}

pub(crate) fn base_url(text: &str) -> Result<String, String> {
    let authority = text
        .strip_prefix("https://")
        .filter(|rest| !rest.is_empty() && !rest.contains(['/', '?', '#', '@']));
    authority
        .map(|_| text.to_owned())
        .ok_or_else(|| "not of the form https://HOST:PORT".to_owned())
}

/// A Go-style duration of at most ten minutes, such as `5s` or `1m30s`, or `0`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    duration_within(text, Duration::ZERO, Duration::from_mins(10), "at most 10m")
}

/// A duration between a second and ten minutes.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    duration_within(
        text,
        Duration::from_secs(1),
        Duration::from_mins(10),
        "between 1s and 10m",
    )
}

/// A duration between a second and thirty days.
pub(crate) fn period(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_hours(30 * 24);
    duration_within(text, Duration::from_secs(1), longest, "between 1s and 720h")
}

/// A duration of at least six seconds and at most a hundred years.
pub(crate) fn lifetime(text: &str) -> Result<SignedDuration, String> {
    let longest = Duration::from_hours(100 * 365 * 24);
    let lifetime = duration_within(text, Duration::from_secs(6), longest, "between 6s and 876000h")?;
    SignedDuration::try_from(lifetime).map_err(|error| error.to_string())
}

fn duration_within(text: &str, shortest: Duration, longest: Duration, limits: &str) -> Result<Duration, String> {
    let parsed: taskgate_api::Duration = text.parse().map_err(|error| format!("{error}"))?;
    let duration = Duration::from(parsed);
    if (shortest..=longest).contains(&duration) {
        Ok(duration)
    } else {
        Err(limits.to_owned())
    }
}

/// `NAMESPACE/NAME`, both legal names.
pub(crate) fn certificate_name(text: &str) -> Result<String, String> {
    let (namespace, name) = text.split_once('/').ok_or("not of the form NAMESPACE/NAME")?;
    object_name(namespace)?;
    object_name(name)?;
    Ok(text.to_owned())
}

/// The base URL of an issue source, without a slash at its end.
pub(crate) fn source_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_base = rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['?', '#', '@', ' ']));
    if is_base {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err("not of the form https://HOST[:PORT][/PATH]".to_owned())
    }
}

/// `HOST` or `HOST:PORT`, in lower case.
pub(crate) fn host(text: &str) -> Result<String, String> {
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"-.:[]".contains(&c);
    if text.is_empty() || !text.bytes().all(legal) {
        return Err("not of the form HOST[:PORT]".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

pub(crate) fn log_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_url_has_no_path() {
        for url in ["http://127.0.0.1:1", "https://", "https://a/b", "127.0.0.1:1"] {
            assert!(base_url(url).is_err(), "{url}");
        }
        assert!(base_url("https://127.0.0.1:9443").is_ok());
    }

    #[test]
    fn a_period_is_from_a_second_to_thirty_days() {
        for (text, good) in [
            ("30m", true),
            ("1s", true),
            ("720h", true),
            ("0s", false),
            ("721h", false),
            ("-1h", false),
            ("soon", false),
        ] {
            assert_eq!(period(text).is_ok(), good, "{text}");
        }
    }
}
