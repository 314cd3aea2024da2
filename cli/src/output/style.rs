//! Colour, where there is somebody to see it: on a terminal that is not dumb, unless `NO_COLOR` is set.

use std::{
    fmt::Display,
    io::{self, IsTerminal as _},
};

/// Whether to colour what is printed on standard output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    coloured: bool,
}

impl Style {
    /// As standard output allows.
    pub(crate) fn of_stdout() -> Self {
        let unset = |name: &str| std::env::var_os(name).is_none_or(|value| value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            coloured: io::stdout().is_terminal() && unset("NO_COLOR") && !dumb,
        }
    }

    /// None at all.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { coloured: false }
    }

    /// What is refused, or wrong.
    pub(crate) fn bad(self, text: impl Display) -> String {
        self.paint("1;31", text)
    }

    /// What is fine.
    pub(crate) fn good(self, text: impl Display) -> String {
        self.paint("32", text)
    }

    /// What deserves a look.
    pub(crate) fn warning(self, text: impl Display) -> String {
        self.paint("33", text)
    }

    /// What matters less.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nobody_sees_it_there_is_no_colour() {
        let plain = Style::plain();
        assert_eq!(plain.bad("denied"), "denied");
        let coloured = Style { coloured: true };
        assert_eq!(coloured.good("allowed"), "\u{1b}[32mallowed\u{1b}[0m");
    }
}
