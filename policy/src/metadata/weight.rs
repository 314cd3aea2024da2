//! What the expressions of a Tera template may cost, weighed before anything runs: Tera itself counts nothing.
//!
//! One unit takes less than 3 µs, for the largest texts that there are: 4 KiB from outside, from a filter
//! or written out, three times that where upper case is longer.
//! Measured with Tera not optimized, on a busy machine: templates of the greatest weight took up to 60 ms, in `title` and
//! `upper`.

use super::scan::Token;

/// The most that one template may weigh.
pub(crate) const MAX_TEMPLATE: u32 = 25_000;
/// The most that the templates of one section may weigh together.
pub(crate) const MAX_SECTION: u32 = 50_000;
/// How often a loop runs at most: no list is longer.
pub(super) const LOOP: u32 = 100;

/// What any token weighs.
const TOKEN: u32 = 1;
/// What compares, searches or calls a function.
const OPERATION: u32 = 20;
/// A filter.
const FILTER: u32 = 50;
/// A filter that goes through a text character by character.
const LETTERS: u32 = 100;
/// A filter that compares all with all.
const SQUARE: u32 = 2_000;

/// The weight of one expression or tag, run once.
///
/// What `~` or a list puts together can be as much larger as there are pieces: then everything in the expression weighs so
/// many times as much.
pub(super) fn of(tokens: &[Token<'_>]) -> u32 {
    let mut weight = 0_u32;
    let mut pieces = 1_u32;
    let mut open = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let previous = index.checked_sub(1).map(|before| tokens[before]);
        match token {
            Token::Symbol(symbol @ ('(' | '[')) => open.push(*symbol),
            Token::Symbol(')' | ']') => drop(open.pop()),
            Token::Symbol('~') => pieces += 1,
            Token::Symbol(',') if open.last() == Some(&'[') => pieces += 1,
            _ => {}
        }
        weight = weight.saturating_add(match token {
            Token::Name(name) if previous == Some(Token::Symbol('|')) => filter(name),
            Token::Symbol('=') if previous == Some(Token::Symbol('=')) => OPERATION,
            Token::Name("is" | "in") | Token::Symbol('!' | '<' | '>' | '~' | '(') => OPERATION,
            _ => TOKEN,
        });
    }
    weight.saturating_mul(pieces)
}

fn filter(name: &str) -> u32 {
    match name {
        "unique" => SQUARE,
        "capitalize" | "lower" | "replace" | "reverse" | "split" | "title" | "upper" => LETTERS,
        _ => FILTER,
    }
}

/// Whether what a loop walks can only be a list or a map, not a text with its thousands of characters; `tokens`: all of the
/// tag.
///
/// A list is what is known to be one, `range(…)`, `[…]`, or what comes from a filter that gives one.
pub(super) fn walks_a_list(tokens: &[Token<'_>]) -> bool {
    let Some(begin) = tokens.iter().position(|token| *token == Token::Name("in")) else {
        // Tera says what is wrong with a loop over nothing.
        return true;
    };
    let walked = outermost(&tokens[begin + 1..]);
    let mut steps = walked.split(|token| *token == Token::Symbol('|'));
    let is_list = steps.next().is_some_and(is_list);
    let is_choice = walked
        .iter()
        .any(|token| matches!(token, Token::Name("if" | "else" | "or" | "and")));
    !is_choice
        && steps.fold(is_list, |is_list, step| match step.first() {
            Some(Token::Name("split" | "sort" | "unique" | "keys" | "values")) => true,
            Some(Token::Name("reverse")) => is_list,
            _ => false,
        })
}

/// `tokens` without what stands in brackets, and without what says that something may be missing.
fn outermost<'s>(tokens: &[Token<'s>]) -> Vec<Token<'s>> {
    let mut depth = 0_u32;
    let mut outermost = Vec::new();
    for token in tokens {
        let closes = matches!(token, Token::Symbol(')' | ']'));
        if closes {
            depth = depth.saturating_sub(1);
        }
        if depth == 0 && *token != Token::Symbol('?') {
            outermost.push(*token);
        }
        if matches!(token, Token::Symbol('(' | '[')) {
            depth += 1;
        }
    }
    outermost
}

fn is_list(tokens: &[Token<'_>]) -> bool {
    // "-" belongs to the end of the tag.
    let tokens = tokens.strip_suffix(&[Token::Symbol('-')]).unwrap_or(tokens);
    let names: Vec<_> = tokens
        .iter()
        .filter_map(|token| match token {
            Token::Name(name) => Some(*name),
            _ => None,
        })
        .collect();
    match tokens {
        [Token::Name("range"), Token::Symbol('('), Token::Symbol(')')] | [Token::Symbol('['), Token::Symbol(']')] => {
            true
        }
        tokens if tokens.len() + 1 != names.len() * 2 => false,
        _ => matches!(
            names[..],
            ["Labels"]
                | ["item" | "namespace", "labels"]
                | ["task", "spec", "agentConfigRefs" | "dependsOn"]
                | ["task" | "spawner" | "namespace", "metadata", "labels"]
                | ["task", "metadata", "annotations"]
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tera::TeraTemplate;

    fn refusal(source: &str) -> Option<String> {
        TeraTemplate::compile(source).err()
    }

    #[test]
    fn a_template_that_would_run_for_minutes_is_refused() {
        let grown = "\"x\" | replace(from=\"x\", to=\"xxxxxxxx\") | replace(from=\"x\", to=\"xxxxxxxx\")";
        let titles = "| title".repeat(250);
        let expression = format!("{{% if {grown} {titles} == \"\" %}}{{% endif %}}");
        let attack = format!("{{% for n in range(end=100) %}}{}{{% endfor %}}", expression.repeat(7));
        assert!(attack.len() < 16 * 1024);
        let names = "{% if item.title == item.title %}{% endif %}".repeat(300);
        for source in [
            attack,
            // Without a loop, without filters, without anything but names.
            expression.repeat(7),
            format!("{{% for n in range(end=100) %}}{names}{{% endfor %}}"),
            format!("{{% if [{}] | unique %}}{{% endif %}}", "user, ".repeat(200)),
            format!("{{% if ({}user) | title %}}{{% endif %}}", "item.title ~ ".repeat(31)).repeat(9),
        ] {
            let refusal = refusal(&source).unwrap();
            assert!(refusal.contains("the template is too much work"), "{refusal}");
        }
    }

    #[test]
    fn a_loop_walks_lists_and_no_texts() {
        for source in [
            "item.title",
            "\"text\"",
            "item.labels[0]",
            "item.labels | first",
            "item.title | default(value=[])",
            "item.title | reverse",
            "item.title or item.labels | sort",
            "item.title if user else item.labels | sort",
            "[user][0]",
            "task.metadata.annotations.labels",
        ] {
            let refusal = refusal(&format!("{{% for x in {source} %}}{{% endfor %}}")).unwrap();
            assert!(refusal.contains("a loop walks a list"), "{source}: {refusal}");
        }
        for source in [
            "item.labels",
            "Labels",
            "item.labels | reverse",
            "item?.labels",
            "[\"a\", user]",
            "range(end=9)",
            "(user or \"a\") | split(pat=\",\")",
            "task.metadata.labels | keys | sort",
            "task.metadata.labels -",
        ] {
            assert_eq!(
                refusal(&format!("{{% for x in {source}%}}{{% endfor %}}")),
                None,
                "{source}"
            );
        }
        assert_eq!(
            refusal("{% for key, value in task.metadata.labels %}{{ key }}{% endfor %}"),
            None
        );
    }

    #[test]
    fn what_people_write_is_light() {
        let recipe = "{% for l in task.metadata.annotations[\"example.com/item-labels\"] | split(pat=\",\") %}{% if l is \
             starting_with(pat=\"priority/\") %}{{ l | replace(from=\"priority/\", to=\"\") }}{% endif %}{% endfor %}";
        assert_eq!(refusal(recipe), None);
    }
}
