//! The command line described elsewhere than by `--help`, from the same definitions: completions for shells, manual pages, and
//! the pages of the documentation.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Command};

use crate::{exit::ExitStatus, output};

/// How wide the pages of the documentation are, in columns.
const WIDTH: usize = 110;

/// What the flags have in common that several commands take.
const SHARED_FLAGS: &str = "
## Shared flags

| Flag | |
|---|---|
| `-n`, `--namespace` | the namespace of the objects, never that of taskgate |
| `--taskgate-namespace` | the namespace of taskgate. Absent: found by taskgate's label |
| `--kubeconfig`, `--context`, `--as`, `--as-group`, `--request-timeout` | as in kubectl |
| `-f`, `--filename` | files or folders to read, `-` for standard input |
| `-l`, `--selector` | objects by their labels |
| `--dry-run=client` | prints what would be written; sends no write |
| `--dry-run=server`, `--dry-run` | the API server evaluates the writes, with admission, and stores nothing |
| `-o` | the form of the result. For jsonpath, ask kubectl: `kubectl get workitems -o jsonpath=…` |
| `-y`, `--yes` | no confirmation. Without it, `uninstall` and `reset --all-open` fail where standard input is no terminal |
| `--warnings-exit-code` | the exit code when there are only warnings, by default 3 |
";

/// Flags of `taskgate completion`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  taskgate completion bash > /etc/bash_completion.d/taskgate
  taskgate completion zsh > ~/.zfunc/_taskgate")]
pub(crate) struct CompletionArgs {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}

/// Flags of `taskgate man`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  taskgate man /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// The folder for the pages. It is created if it does not exist.
    pub(crate) directory: PathBuf,
}

/// Prints the completions for a shell.
pub(crate) fn completion(args: &CompletionArgs, mut command: Command) -> Result<ExitStatus> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "taskgate", &mut script);
    output::print(&String::from_utf8(script).context("completions are text")?)?;
    Ok(ExitStatus::Success)
}

/// Writes a manual page for each command.
pub(crate) fn man(args: &ManArgs, command: Command) -> Result<ExitStatus> {
    let directory = &args.directory;
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    let written = clap_mangen::generate_to(without_environment(command), directory);
    written.with_context(|| format!("writing to {}", directory.display()))?;
    Ok(ExitStatus::Success)
}

/// The pages of `docs/commands/`, by file name: one for each command, and an index.
pub(crate) fn pages(command: Command) -> Vec<(String, String)> {
    let mut command = without_environment(command).term_width(WIDTH);
    command.build();
    let mut index = String::from(
        "# Commands\n\nOne binary: `taskgate`. On the `PATH` as `kubectl-taskgate` it is a plugin of kubectl: `kubectl taskgate`.\n\n\
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
    index.push_str(SHARED_FLAGS);
    index.push_str(
        "\nExit codes, unless a page says otherwise: 0 success; 1 something failed or was denied; 2 usage; 3, or `--warnings-exit-code`, warnings only.\n",
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

/// `command` without the values of environment variables in its help.
fn without_environment(command: Command) -> Command {
    command
        .mut_args(|arg| arg.hide_env_values(true))
        .mut_subcommands(without_environment)
}
