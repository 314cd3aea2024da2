//! What commands print: text, JSON and YAML, tables, colours, ages, progress. A reader that closes its end of the pipe
//! (`taskgate … | head`) is no error.

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
    pin::pin,
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;

/// How long work takes before its progress is shown.
const PROGRESS_DELAY: Duration = Duration::from_secs(1);
/// How often the progress is written again.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// The widest column, in characters: a longer entry moves only the rest of its own line.
pub(crate) const MAX_COLUMN: usize = 200;

/// Prints `text` to standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    try_print(text).map(drop)
}

/// Prints `text` to standard output and returns whether there still is a reader.
pub(crate) fn try_print(text: &str) -> Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("writing to standard output"),
    }
}

/// Prints `message` to standard error, after the program's name.
pub(crate) fn print_error(message: &str) {
    let _ = writeln!(io::stderr(), "taskgate: {message}");
}

/// Prints `text` to standard error, for programs that read it there.
pub(crate) fn print_stderr(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// The form that a command prints its result in. Commands with further forms have an enum of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

impl OutputFormat {
    /// `value` in this form; `text` is its form for people.
    pub(crate) fn render(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<String> {
        match self {
            Self::Text => Ok(text()),
            Self::Json => to_json(value),
            Self::Yaml => to_yaml(value),
        }
    }
}

/// `value` as JSON, indented, with a line end.
pub(crate) fn to_json(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value).context("writing JSON")?;
    Ok(text + "\n")
}

/// `value` as YAML.
pub(crate) fn to_yaml(value: &impl Serialize) -> Result<String> {
    serde_saphyr::to_string(value).context("writing YAML")
}

/// The rows under their headings, if there are any, each on a line, in columns as wide as their widest entry.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let headings: Vec<_> = headings.iter().map(ToString::to_string).collect();
    let lines = || {
        [&headings]
            .into_iter()
            .filter(|headings| !headings.is_empty())
            .chain(rows)
    };
    let mut widths = Vec::new();
    for line in lines() {
        widths.resize(line.len().max(widths.len()), 0);
        for (width, entry) in widths.iter_mut().zip(line) {
            *width = entry.chars().count().min(MAX_COLUMN).max(*width);
        }
    }
    let line = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).map(|(entry, width)| format!("{entry:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    lines().map(line).collect()
}

/// An age as kubectl prints it, a little coarser: 119s, 119m, 47h, 3d. A time in the future has the age 0s.
pub(crate) fn age(since: Timestamp, now: Timestamp) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    match now.duration_since(since).as_secs().max(0) {
        seconds if seconds < 2 * MINUTE => format!("{seconds}s"),
        seconds if seconds < 2 * HOUR => format!("{}m", seconds / MINUTE),
        seconds if seconds < 48 * HOUR => format!("{}h", seconds / HOUR),
        seconds => format!("{}d", seconds / (24 * HOUR)),
    }
}

/// A time as Kubernetes writes it.
pub(crate) fn time(time: Timestamp) -> String {
    time.strftime("%FT%TZ").to_string()
}

/// Whether standard output is coloured: on a terminal that is not dumb, unless `NO_COLOR` is set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    coloured: bool,
}

impl Style {
    /// The style that standard output supports.
    pub(crate) fn of_stdout() -> Self {
        let unset = |name: &str| std::env::var_os(name).is_none_or(|value| value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            coloured: io::stdout().is_terminal() && unset("NO_COLOR") && !dumb,
        }
    }

    /// No colours.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { coloured: false }
    }

    pub(crate) fn bad(self, text: impl Display) -> String {
        self.paint("1;31", text)
    }

    pub(crate) fn good(self, text: impl Display) -> String {
        self.paint("32", text)
    }

    pub(crate) fn warning(self, text: impl Display) -> String {
        self.paint("33", text)
    }

    pub(crate) fn faint(self, text: impl Display) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: impl Display) -> String {
        if self.coloured {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_string()
        }
    }
}

/// The progress of long work: one line on standard error, on a terminal only. It disappears when it is dropped.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    label: &'static str,
    next: Option<Mutex<Instant>>,
}

impl ProgressLine {
    /// The progress of work such as `reading files`.
    pub(crate) fn new(label: &'static str) -> Self {
        let next = io::stderr()
            .is_terminal()
            .then(|| Mutex::new(Instant::now() + PROGRESS_DELAY));
        Self { label, next }
    }

    /// Shows that `done` of `total` are done. Cheap, and callable from any thread.
    pub(crate) fn at(&self, done: usize, total: usize) {
        let Some(Ok(mut next)) = self.next.as_ref().map(Mutex::try_lock) else {
            return;
        };
        let now = Instant::now();
        if now >= *next {
            *next = now + PROGRESS_INTERVAL;
            let _ = write!(io::stderr(), "\r{}: {done} of {total}\u{1b}[K", self.label);
        }
    }

    /// Awaits `work` and shows meanwhile what `counts` returns: done, and of how many.
    pub(crate) async fn during<T>(&self, work: impl Future<Output = T>, counts: impl Fn() -> (usize, usize)) -> T {
        let mut work = pin!(work);
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                biased;
                result = &mut work => return result,
                _ = ticks.tick() => {
                    let (done, total) = counts();
                    self.at(done, total);
                }
            }
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.next.is_some() {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_entry() {
        let rows = [
            vec!["a".to_owned(), "one".to_owned()],
            vec!["bcdé".to_owned(), String::new()],
        ];
        assert_eq!(table(&["N", "WHY"], &rows), "N     WHY\na     one\nbcdé\n");
        assert_eq!(table(&["N", "WHY"], &[]), "N  WHY\n");
    }

    #[test]
    fn only_a_terminal_gets_colours() {
        let plain = Style::plain();
        assert_eq!(plain.bad("denied"), "denied");
        let coloured = Style { coloured: true };
        assert_eq!(coloured.good("allowed"), "\u{1b}[32mallowed\u{1b}[0m");
    }

    #[tokio::test]
    async fn progress_is_polled_while_the_work_waits() {
        let polled = Cell::new(0);
        let work = async {
            while polled.get() < 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            "done"
        };
        let counts = || {
            polled.set(polled.get() + 1);
            (polled.get(), 2)
        };
        assert_eq!(ProgressLine::new("waiting").during(work, counts).await, "done");
    }
}
