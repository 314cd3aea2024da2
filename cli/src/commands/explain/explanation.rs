//! The explanation of an object: lines of data, and their form for people.

use serde::Serialize;
use taskgate_policy::clip;

use crate::output::Style;

/// The longest text of a line, in characters.
const MAX_TEXT: usize = 512;
/// The longest command, in characters.
const MAX_COMMAND: usize = 1024;

/// The explanation of an object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Explanation {
    /// As `Task fixer-42`.
    object: String,
    namespace: String,
    /// In one word.
    state: String,
    pub(super) lines: Vec<Line>,
}

/// One fact about the object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Line {
    topic: Topic,
    pub(super) text: String,
    /// What helps, where no command does, or besides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
    /// The command that helps, ready to be run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command: Option<String>,
    /// The right that the command needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    needs: Option<&'static str>,
}

/// The subject of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Topic {
    /// The state of the object.
    State,
    /// The policies that govern it, and why those.
    Policy,
    /// What admission changed when it was created, and writes since then.
    Admission,
    /// What blocks it.
    Waits,
    /// What happens automatically.
    Next,
    /// Its item and its attempts.
    Item,
    /// What could not be read.
    Hidden,
}

impl Line {
    pub(super) fn new(topic: Topic, text: impl AsRef<str>) -> Self {
        Self {
            topic,
            text: clip(text.as_ref(), MAX_TEXT),
            advice: None,
            command: None,
            needs: None,
        }
    }

    pub(super) fn waits(text: impl AsRef<str>) -> Self {
        Self::new(Topic::Waits, text)
    }

    pub(super) fn advice(self, advice: impl AsRef<str>) -> Self {
        Self {
            advice: Some(clip(advice.as_ref(), MAX_TEXT)),
            ..self
        }
    }

    /// A command made by [`command`], and the right that it needs.
    pub(super) fn command(self, command: String, needs: &'static str) -> Self {
        Self {
            command: Some(command),
            needs: Some(needs),
            ..self
        }
    }
}

impl Explanation {
    pub(super) fn new(namespace: &str, object: &str, state: &str, lines: Vec<Line>) -> Self {
        Self {
            object: clip(object, MAX_TEXT),
            namespace: clip(namespace, MAX_TEXT),
            state: clip(state, MAX_TEXT),
            lines,
        }
    }

    /// Whether everything could be read.
    pub(super) fn is_complete(&self) -> bool {
        self.lines.iter().all(|line| line.topic != Topic::Hidden)
    }

    /// Each line, and beneath it what helps.
    pub(super) fn text(&self, style: Style) -> String {
        let state = match self.state.as_str() {
            state @ ("CircuitBroken" | "Failed" | "Open" | "ItemsStopped") => style.bad(state),
            state @ ("Succeeded" | "Completed" | "Running" | "Closed" | "NoItemStopped") => style.good(state),
            state => style.warning(state),
        };
        let mut lines = vec![format!("{} in namespace {}: {state}", self.object, self.namespace)];
        for line in &self.lines {
            let topic = format!("{:<9}", format!("{:?}", line.topic));
            lines.push(format!("  {}  {}", style.faint(topic), line.text));
            let beneath = |text: String| format!("  {:<9}  → {text}", "");
            lines.extend(line.advice.clone().map(beneath));
            lines.extend(line.command.as_ref().map(|command| {
                let needs = line.needs.map(|needs| style.faint(format!("  (needs {needs})")));
                beneath(format!("{}{}", style.good(command), needs.unwrap_or_default()))
            }));
        }
        lines.join("\n") + "\n"
    }
}

/// A command line that a shell splits into `words` again, whatever they contain.
pub(super) fn command<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.into_iter().map(quoted).collect();
    clip(&words.join(" "), MAX_COMMAND)
}

fn quoted(word: &str) -> String {
    if is_plain(word) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Whether a shell takes `word` literally.
fn is_plain(word: &str) -> bool {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./:=@+,".contains(character);
    !word.is_empty() && word.chars().all(plain)
}

/// Whether `word` is neither a flag nor needs quotes.
pub(super) fn is_argument(word: &str) -> bool {
    is_plain(word) && !word.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_splits_a_command_into_its_words() {
        assert_eq!(
            command(["taskgate", "reset", "fixer/42", "-n", "team"]),
            "taskgate reset fixer/42 -n team"
        );
        assert_eq!(command(["a", "", "b c", "$(d)", "e'f"]), r"a '' 'b c' '$(d)' 'e'\''f'");
        assert!(is_argument("fixer/42"));
        for bad in ["", "--all-open", "a b", "a;b", "a#7"] {
            assert!(!is_argument(bad), "{bad}");
        }
    }
}
