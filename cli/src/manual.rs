//! The command line told elsewhere than by `--help`, from the same definitions: completions for shells, manual pages, and the
//! pages of the documentation.

use std::{ffi::OsString, fmt::Write as _, fs, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory as _};

use crate::{
    args::{Cli, CompletionsArgs, ManArgs},
    completion, output,
};

/// How wide the pages of the documentation are, in columns.
const WIDTH: usize = 110;

/// Prints the completions for a shell.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "taskgate", &mut script);
    output::print(&String::from_utf8(script).context("completions are text")?)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what kubectl may propose for the last of `words`.
pub(crate) fn propose(words: impl Iterator<Item = OsString>) -> Result<ExitCode> {
    let mut command = Cli::command();
    command.build();
    let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    output::print(&completion::complete(&command, &words))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a manual page for each command.
pub(crate) fn man(args: &ManArgs) -> Result<ExitCode> {
    let directory = &args.directory;
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    let written = clap_mangen::generate_to(quiet(Cli::command()), directory);
    written.with_context(|| format!("writing to {}", directory.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// The pages of `docs/commands/`, by their file's name: one for each command, and one that names them all.
pub(crate) fn pages() -> Vec<(String, String)> {
    let mut command = quiet(Cli::command()).term_width(WIDTH);
    command.build();
    let mut index = String::from(
        "# Commands\n\nOne binary: `taskgate`. Found on the `PATH` as `kubectl-taskgate`, it also answers to `kubectl taskgate`, and as\n\
         `kubectl_complete-taskgate` it tells kubectl how to complete that.\n\n\
         | Command | |\n|---|---|\n",
    );
    let mut pages = Vec::new();
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = command.get_name();
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(index, "| [{name}]({name}.md) | {about} |");
        let mut page = format!("# taskgate {name}\n");
        describe(&mut page, command);
        pages.push((format!("{name}.md"), page));
    }
    index.push_str(
        "\nExit codes, where a page says nothing else: 0, it did what was asked; 1, it did not, or something was denied; 2, the \
         command line cannot\nbe meant; 3, there are warnings only.\n",
    );
    pages.push(("README.md".to_owned(), index));
    pages
}

fn describe(page: &mut String, command: &Command) {
    let help = command.clone().render_long_help().to_string();
    let lines: Vec<_> = help.lines().map(str::trim_end).collect();
    let _ = write!(page, "\n```text\n{}\n```\n", lines.join("\n").trim_end());
    for nested in command.get_subcommands().filter(|nested| nested.get_name() != "help") {
        let _ = write!(page, "\n## {} {}\n", command.get_name(), nested.get_name());
        describe(page, nested);
    }
}

/// Without the values that environment variables have where this runs.
fn quiet(command: Command) -> Command {
    command.mut_args(|arg| arg.hide_env_values(true)).mut_subcommands(quiet)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

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
    fn pages_do_not_tell_where_they_were_made() {
        let pages = pages();
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
    fn every_shell_gets_completions_and_every_command_its_page() -> Result<()> {
        for shell in clap::ValueEnum::value_variants().iter().copied() {
            let _: clap_complete::Shell = shell;
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "taskgate", &mut script);
            assert!(String::from_utf8(script)?.contains("explain"), "{shell}");
        }
        let folder = tempfile::tempdir()?;
        man(&ManArgs {
            directory: folder.path().join("man1"),
        })?;
        for command in Cli::command().get_subcommands() {
            let page = folder.path().join(format!("man1/taskgate-{}.1", command.get_name()));
            assert!(
                fs::read_to_string(&page)?.contains(".SH SYNOPSIS"),
                "{}",
                page.display()
            );
        }
        Ok(())
    }
}
