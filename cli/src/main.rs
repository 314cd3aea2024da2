//! The `taskgate` binary: parses the command line and hands over to one module per command. No logic lives here.

mod api_server;
mod args;
mod certificates;
mod commands;
mod completion;
mod logging;
mod manifests;
mod manual;
mod output;
mod rights;
mod serve;
mod traces;

use std::{env, ffi::OsStr, path::Path, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    let called = env::args_os().next();
    let called = called.as_deref().map(Path::new).and_then(Path::file_stem);
    let outcome = match called.and_then(OsStr::to_str) {
        Some(completion::NAME) => manual::propose(env::args_os().skip(1)),
        Some("kubectl-taskgate") => run(parse(Cli::command().bin_name("kubectl taskgate"))),
        _ => run(parse(Cli::command())),
    };
    match outcome {
        Ok(code) => code,
        // Before logging has started, and for commands that do not log.
        Err(error) => {
            output::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// As `kubectl-taskgate` on the `PATH` it is a plugin of kubectl, and calls itself as it was called.
fn parse(command: clap::Command) -> Cli {
    Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(args) => serve::main(*args),
        Command::Manifests(args) => manifests::main(args),
        Command::Render(args) => commands::run(commands::render::run(*args)),
        Command::Check(args) => commands::run(commands::check::run(*args)),
        Command::Test(args) => commands::run(commands::test::run(args)),
        Command::Reset(args) => commands::run(commands::reset::run(args)),
        Command::Cancel(args) => commands::run(commands::cancel::run(args)),
        Command::Retry(args) => commands::run(commands::retry::run(args)),
        Command::Uninstall(args) => commands::run(commands::uninstall::run(args)),
        Command::Disable(args) => commands::run(commands::disable::disable(args)),
        Command::Enable(args) => commands::run(commands::disable::enable(args)),
        Command::Explain(args) => commands::run(commands::explain::run(args)),
        Command::Status(args) => commands::run(commands::status::run(args)),
        Command::Doctor(args) => commands::run(commands::doctor::run(args)),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
    }
}
