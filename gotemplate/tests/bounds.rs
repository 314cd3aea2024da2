//! What a render may cost, what it says when it ends early, and that nothing makes it panic.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};
use taskgate_gotemplate::{Cause, Limits, RenderError, Template, Unprintable};

const SMALL: Limits = Limits {
    steps: 1_000,
    bytes: 1_000,
};

fn item() -> Value {
    json!({
        "Title": "Fix {{.Number}}", "Kind": "Issue", "Number": 42, "Labels": ["bug"], "Nil": null,
        "task": {"labels": {"team": "blue"}},
    })
}

fn render(template: &str) -> Result<String, RenderError> {
    let rendered = Template::parse(template)
        .unwrap()
        .render(&item(), SMALL, Unprintable::Refuse);
    rendered.map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn a_template_that_would_run_for_minutes_costs_its_limit() {
    let operands = format!(
        "{{{{range 9}}}}{{{{$x := len (print {}) }}}}{{{{end}}}}",
        "0 ".repeat(200)
    );
    for (template, part) in [
        ("{{range 1000000000}}{{end}}", "steps"),
        (
            "{{range 1000}}{{range 1000}}{{range 1000}}{{end}}{{end}}{{end}}",
            "steps",
        ),
        ("{{range 1000}}xxxxxxxxxxxxxxxxxxxx{{end}}", "longer than"),
        ("{{printf \"%1000000d\" 1}}", "longer than"),
        ("{{printf \"%.999999f\" 1.0}}", "longer than"),
        // Each operand takes a step, also of what is thrown away.
        (operands.as_str(), "steps"),
        ("{{$s := \"x\"}}{{range 100}}{{$s = print $s $s}}{{end}}", "longer than"),
        (
            "{{$s := printf \"%900d\" 1}}{{range 1000}}{{$s}}{{$s = $s}}{{end}}",
            "longer than",
        ),
        (
            "{{define \"r\"}}{{template \"r\" .}}{{end}}{{template \"r\" .}}",
            "deep",
        ),
    ] {
        let error = render(template).unwrap_err();
        assert_eq!(error.cause, Cause::Limit, "{template}: {error}");
        assert!(error.message.contains(part), "{template}: {error}");
    }
}

#[test]
fn nesting_is_bounded_before_anything_runs() {
    let parens = format!("{{{{{}1{}}}}}", "(".repeat(60), ")".repeat(60));
    let blocks = format!("{}{}", "{{if true}}".repeat(60), "{{end}}".repeat(60));
    for template in [parens, blocks] {
        let error = Template::parse(&template).unwrap_err();
        assert!(error.message.contains("nested more than 50 deep"), "{error}");
    }
}

#[test]
fn what_is_not_there_is_told_and_never_printed() {
    for (template, message) in [
        ("a {{.Author}}", "line 1, column 5: .Author is not there"),
        (
            "{{.task.labels.size}}",
            "line 1, column 3: .task.labels.size is not there",
        ),
        ("{{.Nil}}", "line 1, column 3: .Nil is not there"),
        ("{{print .Author}}", "line 1, column 3: a value to print is not there"),
        (
            "{{printf \"%s\" .Author}}",
            "line 1, column 3: a value to print is not there",
        ),
        ("\n é{{index .Labels 1}}", "line 2, column 5: index out of range: 1"),
        ("{{index .Assignees 0}}", "line 1, column 3: index of what is not there"),
        ("{{len .Assignees}}", "line 1, column 3: len of what is not there"),
    ] {
        let error = render(template).unwrap_err();
        assert_eq!(
            (error.cause, error.to_string().as_str()),
            (Cause::Missing, message),
            "{template}"
        );
    }
    assert_eq!(render("{{or .Author \"nobody\"}}").unwrap(), "nobody");
    assert_eq!(render("{{with .Author}}{{.}}{{end}}").unwrap(), "");
}

#[test]
fn a_wrong_format_is_an_error_and_not_a_text_that_says_so() {
    for template in ["{{printf \"%d\" .Kind}}", "{{printf \"%s\"}}", "{{printf \"x\" 1}}"] {
        let error = render(template).unwrap_err();
        assert_eq!(error.cause, Cause::Misuse, "{template}: {error}");
        assert!(error.message.contains("%!"), "{template}: {error}");
    }
}

#[test]
fn a_format_that_is_not_known_before_is_refused_when_it_is_rendered() {
    for (format, name) in [("%T", "%T"), ("%#v", "flag #"), ("%.1[1]f", "argument indexes")] {
        let error = render(&format!("{{{{$f := `{format}`}}}}{{{{printf $f .Title}}}}")).unwrap_err();
        assert_eq!(error.cause, Cause::Misuse, "{format}: {error}");
        assert!(error.message.contains(name), "{format}: {error}");
    }
}

#[test]
fn what_the_data_says_is_never_a_template() {
    assert_eq!(render("{{.Title}}").unwrap(), "Fix {{.Number}}");
    assert_eq!(render("{{printf \"%s\" .Title}}").unwrap(), "Fix {{.Number}}");
}

#[test]
fn a_refusal_says_line_and_column() {
    for (template, message) in [
        ("{{.Title", "line 1, column 1: unclosed action"),
        (
            "a\n {{ nope .Title }}",
            "line 2, column 5: function \"nope\" not defined",
        ),
        (
            "é{{if .Title}}",
            "line 1, column 15: unexpected end of the template: {{end}} is missing",
        ),
        (
            "{{html .Title}}",
            "line 1, column 3: function \"html\" is not supported: nothing here is a web page",
        ),
        ("{{(print 1}}", "line 1, column 3: unclosed left paren"),
        (
            "{{printf \"%s %T\" .Title .Title}}",
            "line 1, column 10: printf: the verb %T is not supported",
        ),
        (
            "a\n{{if .Nil}}{{printf `%-8p` .Labels}}{{end}}",
            "line 2, column 21: printf: the verb %p is not supported",
        ),
        (
            "é{{.Title | printf \"100%% %w\"}}",
            "line 1, column 20: printf: the verb %w is not supported",
        ),
        (
            "{{printf \"%+#v\" .Title}}",
            "line 1, column 10: printf: the flag # is not supported",
        ),
        (
            "{{printf \"%5[1]d\" 1}}",
            "line 1, column 10: printf: argument indexes such as %[1]d are not supported",
        ),
    ] {
        assert_eq!(
            Template::parse(template).unwrap_err().to_string(),
            message,
            "{template}"
        );
    }
}

/// Pieces that make templates which are nearly right.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec![
            "{{", "}}", "{{-", "-}}", " ", "(", ")", "|", ".", "$x", ":=", "=", ",", "if", "else", "end", "range", "with",
            "define", "template", "block", "break", "continue", ".Title", ".Labels", ".Number", ".Nil", ".task", "print",
            "printf", "index", "slice", "len", "eq", "lt", "and", "not", "0", "1", "-1", "1.5", "'a'", "nil", "true",
            "\"%s\"", "\"%5.2d%\"", "`x`", "/*", "*/", "{{end}}", "{{range .Labels}}", "{{if .Title}}", "\n",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,4}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn any_text_at_all_is_parsed_or_refused_and_renders_within_its_limits(
        pieces in prop::collection::vec(piece(), 0..24),
    ) {
        let source: String = pieces.concat();
        match Template::parse(&source) {
            Ok(template) => for unprintable in [Unprintable::Refuse, Unprintable::Print] {
                if let Ok(bytes) = template.render(&item(), SMALL, unprintable) {
                    prop_assert!(bytes.len() <= SMALL.bytes);
                    if unprintable == Unprintable::Refuse {
                        let text = String::from_utf8_lossy(&bytes);
                        prop_assert!(source.contains("<no") || !text.contains("<no value>"), "{source:?}: {text:?}");
                    }
                }
            },
            Err(error) => prop_assert!(error.position.line >= 1 && !error.message.contains('\n'), "{error}"),
        }
    }
}
