//! What kubectl completes after `kubectl taskgate`: it runs `kubectl_complete-taskgate` with the words so far, the last of them
//! perhaps only begun, and reads a proposal from each line, with a tab before its description. The last line is a number that
//! tells the shell what else it may propose (kubectl's plugins, cobra's directives).

use clap::{Arg, Command, ValueHint};

/// The name by which kubectl calls.
pub(crate) const NAME: &str = "kubectl_complete-taskgate";
/// The shell's own names of files are of use.
const FILES: u8 = 0;
/// They are not.
const NO_FILES: u8 = 4;

/// What may stand in place of the last of `words` on the command line of `command`, which is built.
pub(crate) fn complete(command: &Command, words: &[String]) -> String {
    let (last, before) = words
        .split_last()
        .map_or(("", words), |(last, before)| (last.as_str(), before));
    let place = Place::after(command, before);
    let (proposed, directive) = place.proposals(last);
    let proposed = proposed.into_iter().filter(|(word, _)| word.starts_with(last));
    let lines = proposed.map(|(word, about)| match about.lines().next() {
        Some(about) => format!("{word}\t{about}\n"),
        None => format!("{word}\n"),
    });
    lines.chain([format!(":{directive}\n")]).collect()
}

/// Where on the command line the word stands that is to be completed.
struct Place<'a> {
    command: &'a Command,
    /// The flag that waits for its value.
    flag: Option<&'a Arg>,
    /// How many arguments without a flag stand before it.
    arguments: usize,
    /// Whether a `--` ended the flags.
    no_flags: bool,
}

impl<'a> Place<'a> {
    fn after(command: &'a Command, words: &[String]) -> Self {
        let mut place = Self {
            command,
            flag: None,
            arguments: 0,
            no_flags: false,
        };
        for word in words {
            place.pass(word);
        }
        place
    }

    fn pass(&mut self, word: &str) {
        if self.flag.take().is_some() {
            return;
        }
        if word == "--" {
            self.no_flags = true;
        } else if word.starts_with('-') && !self.no_flags {
            self.flag = self.flag_named(word).filter(|flag| flag.get_action().takes_values());
        } else if let Some(command) = self.command.find_subcommand(word).filter(|_| self.arguments == 0) {
            self.command = command;
        } else {
            self.arguments += 1;
        }
    }

    /// The flag that `word` is; one with its value, as in `--output=json`, is none that waits for it.
    fn flag_named(&self, word: &str) -> Option<&'a Arg> {
        let long = word.strip_prefix("--");
        let short = word.strip_prefix('-').filter(|rest| rest.chars().count() == 1);
        self.command.get_arguments().find(|arg| {
            let is_long = long.is_some() && arg.get_long() == long;
            is_long || short.is_some_and(|short| arg.get_short() == short.chars().next())
        })
    }

    /// Words with what they are about, whatever they begin with, and the directive.
    fn proposals(&self, last: &str) -> (Vec<(String, String)>, u8) {
        if let Some(flag) = self.flag {
            return values(flag, "");
        }
        if let Some((name, _)) = last.split_once('=')
            && let Some(flag) = self.flag_named(name)
        {
            return values(flag, &format!("{name}="));
        }
        if last.starts_with('-') && !self.no_flags {
            let flags = self.command.get_arguments().filter(|arg| !arg.is_hide_set());
            let flags = flags.filter_map(|arg| Some((format!("--{}", arg.get_long()?), said(arg.get_help()))));
            return (flags.collect(), NO_FILES);
        }
        let commands = self.command.get_subcommands().filter(|command| !command.is_hide_set());
        if self.arguments == 0 && self.command.has_subcommands() {
            let commands = commands.map(|command| (command.get_name().to_owned(), said(command.get_about())));
            return (commands.collect(), NO_FILES);
        }
        let positionals: Vec<_> = self.command.get_positionals().collect();
        let at = positionals.get(self.arguments).or(positionals.last());
        let takes_more =
            |arg: &&&Arg| self.arguments < positionals.len() || arg.get_action().takes_values() && is_many(arg);
        at.filter(takes_more)
            .map_or((Vec::new(), NO_FILES), |arg| values(arg, ""))
    }
}

fn is_many(arg: &Arg) -> bool {
    arg.get_num_args().is_some_and(|count| count.max_values() > 1)
}

/// The values that `arg` may have, each behind `prefix`.
fn values(arg: &Arg, prefix: &str) -> (Vec<(String, String)>, u8) {
    let values = arg
        .get_possible_values()
        .into_iter()
        .filter(|value| !value.is_hide_set());
    let values = values.map(|value| (format!("{prefix}{}", value.get_name()), said(value.get_help())));
    let is_path = matches!(
        arg.get_value_hint(),
        ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath
    );
    (values.collect(), if is_path { FILES } else { NO_FILES })
}

fn said(help: Option<&clap::builder::StyledStr>) -> String {
    help.map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Cli;

    fn proposed(line: &str) -> (Vec<String>, u8) {
        let mut command = Cli::command();
        command.build();
        let words: Vec<_> = line.split(' ').map(ToOwned::to_owned).collect();
        let text = complete(&command, &words);
        let mut lines: Vec<_> = text.lines().collect();
        let directive = lines.pop().and_then(|line| line.strip_prefix(':')).unwrap();
        let word = |line: &&str| line.split('\t').next().unwrap_or_default().to_owned();
        (lines.iter().map(word).collect(), directive.parse().unwrap())
    }

    #[test]
    fn what_may_come_next_is_proposed() {
        let some = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (line, words, directive) in [
            ("ch", some(&["check"]), NO_FILES),
            ("check --dry", some(&[]), NO_FILES),
            ("reset --dry", some(&["--dry-run"]), NO_FILES),
            ("check -o j", some(&["json", "junit"]), NO_FILES),
            ("check --output=j", some(&["--output=json", "--output=junit"]), NO_FILES),
            ("check -n team ", some(&[]), FILES),
            ("check a.yaml b.yaml ", some(&[]), FILES),
            ("check --with ", some(&[]), FILES),
            ("check -- --out", some(&[]), FILES),
            ("completions b", some(&["bash"]), NO_FILES),
            ("completions bash ", some(&[]), NO_FILES),
            ("manifests cr", some(&["crds"]), NO_FILES),
            ("explain ", some(&[]), NO_FILES),
            ("nonsense ", some(&[]), NO_FILES),
        ] {
            assert_eq!(proposed(line), (words, directive), "{line:?}");
        }
        let (commands, _) = proposed("");
        assert!(
            commands.contains(&"doctor".to_owned()) && commands.contains(&"status".to_owned()),
            "{commands:?}"
        );
    }
}
