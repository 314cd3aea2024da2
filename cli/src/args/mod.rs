//! The command line. Values are parsed into types here, so that a wrong one stops the start with the flag's name (C24).
//! The flags of a command that asks a cluster are with the command.

mod manifests;
mod serve;
mod values;

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

pub(crate) use self::{
    manifests::{Folders, ManifestsArgs, ManifestsCommand},
    serve::{CertMode, ServeArgs},
    values::{duration, object_name},
};
use crate::commands::{
    cancel::CancelArgs,
    check::CheckArgs,
    disable::{DisableArgs, EnableArgs},
    doctor::DoctorArgs,
    explain::ExplainArgs,
    render::RenderArgs,
    reset::ResetArgs,
    retry::RetryArgs,
    status::StatusArgs,
    test::TestArgs,
    uninstall::UninstallArgs,
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
#[command(name = "taskgate", version, propagate_version = true)]
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
    /// Tell the story of a Task, an item, a spawner or a Workload: who governs it and why, what it waits for, and what lets it go on.
    Explain(ExplainArgs),
    /// Show whether taskgate is at work, what it governs, where each Task stands, and which items are stopped at what cost.
    Status(StatusArgs),
    /// Look whether taskgate works in this cluster, and tell what to do where it does not.
    Doctor(DoctorArgs),
    /// Print what a shell needs to complete this command line.
    Completions(CompletionsArgs),
    /// Write a manual page for each command.
    Man(ManArgs),
}

/// Flags of `taskgate completions`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  taskgate completions bash > /etc/bash_completion.d/taskgate
  taskgate completions zsh > ~/.zfunc/_taskgate")]
pub(crate) struct CompletionsArgs {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}

/// Flags of `taskgate man`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  taskgate man /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// The folder for the pages. It is made if it is not there.
    pub(crate) directory: PathBuf,
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
}
