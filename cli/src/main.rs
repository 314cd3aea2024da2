//! The `taskgate` binary: parses the command line and hands over to one module per command. No logic lives here.

mod args;
mod certificates;
mod commands;
mod logging;
mod manifests;
mod output;
mod rights;
mod serve;
mod traces;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
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
