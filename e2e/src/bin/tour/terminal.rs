//! What the person at the terminal sees.

// Printing is what it is for.
#![allow(clippy::print_stdout)]

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

use anyhow::Context as _;
use taskgate_e2e::ControlPlane;

/// Shows a command as it would be typed, runs it, and shows all that it prints.
pub(crate) async fn typed(cp: &ControlPlane, line: &str) -> anyhow::Result<()> {
    typed_with_input(cp, line, "").await
}

/// As [`typed`], with the content of the file that the line names.
pub(crate) async fn typed_with_input(cp: &ControlPlane, line: &str, file: &str) -> anyhow::Result<()> {
    say(&styled("36", &format!("$ {line}")));
    let mut words = line.split_whitespace();
    let program = words.next();
    let args: Vec<&str> = words
        .map(|word| word.strip_suffix(".yaml").map_or(word.trim_matches('\''), |_| "-"))
        .collect();
    let output = match program {
        Some("taskgate") => cp.taskgate(cp.kubeconfig(), &args).await?,
        _ => cp.kubectl_with_input(args, file).await?,
    };
    say(format!("{}{}", output.stdout, output.stderr).trim_end());
    Ok(())
}

/// Does `work`, and shows how long it took.
pub(crate) async fn timed<T>(what: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let started = Instant::now();
    print!("{what} … ");
    std::io::stdout().flush().context("writing to the terminal")?;
    let done = work.await?;
    say(&format!("{:.1} s", started.elapsed().as_secs_f32()));
    Ok(done)
}

pub(crate) fn heading(text: &str) {
    say(&styled("1", &format!("\n{text}")));
}

/// `text` in an ANSI style, if the output is a terminal.
fn styled(style: &str, text: &str) -> String {
    if std::io::stdout().is_terminal() {
        format!("\x1b[{style}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

pub(crate) fn show_file(text: &str) {
    say(text.trim_end());
}

pub(crate) fn say(text: &str) {
    println!("{text}");
}
