//! Command lines for people to run.

use taskgate_policy::clip;

/// The longest line, in characters.
const MAX_COMMAND: usize = 1024;

/// A line that a shell takes apart into `words` again, whatever stands in them.
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

/// Whether a shell takes `word` as it is.
fn is_plain(word: &str) -> bool {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./:=@+,".contains(character);
    !word.is_empty() && word.chars().all(plain)
}

/// Whether `word` is neither a flag nor in need of quotes.
pub(super) fn is_argument(word: &str) -> bool {
    is_plain(word) && !word.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_meant() {
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
