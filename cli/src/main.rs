//! The `taskgate` binary: the command line, assembled from the arguments of each command, and one call per command.
//!
//! Imports point from here to the commands, from these to [`cluster`], [`output`], [`rights`] and [`flags`], never back.

mod cluster;
mod commands;
mod defaults;
mod exit;
mod flags;
mod manifests;
mod manual;
mod output;
mod rights;
mod serve;

use std::{env, ffi::OsStr, path::Path, process::ExitCode};

use anyhow::{Context as _, Result, anyhow};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::{
    commands::{cancel, check, disable, doctor, explain, render, reset, retry, status, test, uninstall, version},
    exit::ExitStatus,
    flags::WarningsArgs,
};

/// Circuit breaker, cancellation, queueing, retry and metadata for the Tasks of coding agents on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "taskgate", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve admission and run the controller until SIGTERM.
    Serve(Box<serve::args::ServeArgs>),
    /// Print or write the manifests of an installation.
    Manifests(manifests::ManifestsArgs),
    /// Evaluate objects as admission would, from files or against a cluster.
    Check(Box<check::CheckArgs>),
    /// Run test cases of policies.
    Test(test::TestArgs),
    /// Show which labels and annotations a policy sets on a Task, and why.
    Render(Box<render::RenderArgs>),
    /// Reset the failures of items, so that they get Tasks again.
    Reset(reset::ResetArgs),
    /// Cancel Tasks: their agents are stopped.
    Cancel(cancel::CancelArgs),
    /// Retry failed Workloads and Tasks.
    Retry(retry::RetryArgs),
    /// Remove taskgate and its finalizers from a cluster.
    Uninstall(uninstall::UninstallArgs),
    /// Disable taskgate in an incident.
    Disable(disable::DisableArgs),
    /// Enable taskgate again.
    Enable(disable::EnableArgs),
    /// Explain why a Task is not progressing.
    Explain(explain::ExplainArgs),
    /// Show policies, Tasks, open items and their costs.
    Status(status::StatusArgs),
    /// Diagnose the installation.
    Doctor(doctor::DoctorArgs),
    /// Print the versions of the client and the server.
    Version(version::VersionArgs),
    /// Print the completion script for a shell.
    #[command(alias = "completions")]
    Completion(manual::CompletionArgs),
    /// Write the manual pages.
    Man(manual::ManArgs),
}

impl Command {
    /// The exit code of the command when there are warnings and nothing worse.
    fn warnings_exit_code(&self) -> u8 {
        match self {
            Self::Check(args) => args.warnings.warnings_exit_code,
            Self::Explain(args) => args.warnings.warnings_exit_code,
            Self::Status(args) => args.warnings.warnings_exit_code,
            Self::Doctor(args) => args.warnings.warnings_exit_code,
            _ => WarningsArgs::DEFAULT,
        }
    }
}

fn main() -> ExitCode {
    // As `kubectl-taskgate` on the `PATH` it is a plugin of kubectl, and its help says so.
    let program = env::args_os().next();
    let name = program.as_deref().map(Path::new).and_then(Path::file_stem);
    let mut command = Cli::command();
    if name.and_then(OsStr::to_str) == Some("kubectl-taskgate") {
        command = command.bin_name("kubectl taskgate");
    }
    let cli = Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    let warnings = cli.command.warnings_exit_code();
    exit::code(start(cli.command), warnings)
}

/// Runs a command on a runtime, with the crypto provider installed.
fn start(command: Command) -> Result<ExitStatus> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow!("a crypto provider is installed already"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("starting the runtime")?.block_on(run(command))
}

async fn run(command: Command) -> Result<ExitStatus> {
    match command {
        Command::Serve(args) => serve::run(*args).await,
        Command::Manifests(args) => manifests::run(args, Cli::command()),
        Command::Render(args) => render::run(*args).await,
        Command::Check(args) => check::run(*args).await,
        Command::Test(args) => test::run(args).await,
        Command::Reset(args) => reset::run(args).await,
        Command::Cancel(args) => cancel::run(args).await,
        Command::Retry(args) => retry::run(args).await,
        Command::Uninstall(args) => uninstall::run(args).await,
        Command::Disable(args) => disable::disable(args).await,
        Command::Enable(args) => disable::enable(args).await,
        Command::Explain(args) => explain::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Version(args) => version::run(args).await,
        Command::Completion(args) => manual::completion(&args, Cli::command()),
        Command::Man(args) => manual::man(&args, Cli::command()),
    }
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
    fn shared_flags_are_kubectls() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map_err(|error| error.exit_code());
        for good in [
            "taskgate reset 42",
            "taskgate reset fixer/42 b-7-0 -n team --context prod --kubeconfig f --reason why --dry-run",
            "taskgate reset --all-open --yes --dry-run=client",
            "taskgate reset 42 --as ann --as-group sre --as-group dev --request-timeout 5s",
            "taskgate cancel -l team=blue --dry-run=server",
            "taskgate cancel task/a b -n team",
            "taskgate retry -l team=blue",
            "taskgate check -f policy.yaml -f task.yaml --as ann --as-group dev --warnings-exit-code 0",
            "taskgate explain a --filename dump.yaml",
            "taskgate uninstall --taskgate-namespace gate -y",
            "taskgate completions bash",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "taskgate reset",
            "taskgate reset 42 --all-open",
            "taskgate reset 42 -n No_Name",
            "taskgate reset 42 --dry-run=maybe",
            "taskgate reset 42 --as-group dev",
            "taskgate cancel",
            "taskgate cancel a -l team=blue",
            "taskgate cancel pod/a",
            "taskgate doctor -n team",
            "taskgate check a --warnings-exit-code 256",
            "taskgate reset 42 --no-such-flag",
        ] {
            assert_eq!(parse(bad).map(drop), Err(2), "{bad}");
        }
    }

    /// The commands that a help text shows, without what a shell does around them.
    fn examples(help: &str) -> Vec<String> {
        let shown = help.lines().map(str::trim).filter(|line| line.starts_with("taskgate "));
        let alone = |line: &str| {
            let ends = ["  ", " | ", " > ", " #"].iter().filter_map(|end| line.find(end));
            line[..ends.min().unwrap_or(line.len())].to_owned()
        };
        shown.map(alone).collect()
    }

    #[test]
    fn every_command_shows_an_example_and_every_example_parses() {
        let mut command = Cli::command();
        command.build();
        for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
            let name = command.get_name();
            let own = examples(&command.clone().render_long_help().to_string());
            assert!(!own.is_empty(), "{name} has no example");
            for example in own {
                assert!(example.starts_with(&format!("taskgate {name}")), "{name}: {example}");
                if let Err(error) = Cli::try_parse_from(example.split(' ')) {
                    panic!("{example}: {error}");
                }
            }
        }
    }

    #[test]
    fn pages_do_not_depend_on_the_environment() {
        let pages = manual::pages(Cli::command());
        assert!(
            pages
                .iter()
                .any(|(name, text)| name == "check.md" && text.contains("taskgate check [OPTIONS]"))
        );
        for (name, text) in pages {
            assert!(text.lines().all(|line| line.trim_end() == line), "{name}");
            assert!(!text.contains("[env: TASKGATE_LISTEN="), "{name}");
        }
    }

    #[test]
    fn every_shell_gets_completions_and_every_command_its_page() -> anyhow::Result<()> {
        for shell in clap::ValueEnum::value_variants().iter().copied() {
            let _: clap_complete::Shell = shell;
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "taskgate", &mut script);
            assert!(String::from_utf8(script)?.contains("explain"), "{shell}");
        }
        let folder = tempfile::tempdir()?;
        let directory = folder.path().join("man1");
        manual::man(&manual::ManArgs { directory }, Cli::command())?;
        for command in Cli::command().get_subcommands() {
            let page = folder.path().join(format!("man1/taskgate-{}.1", command.get_name()));
            assert!(
                std::fs::read_to_string(&page)?.contains(".SH SYNOPSIS"),
                "{}",
                page.display()
            );
        }
        Ok(())
    }
}
