use std::{cell::Cell, io::Write};

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn context() -> Context {
    let text = "x".repeat(4096);
    Context::from(json!({
        "item": {"url": "https://x", "title": "{{ item.url }} & <b>", "labels": ["priority/critical", "bug"], "number": 42},
        "task": {"metadata": {"labels": {"team": "blue", "a.b/c": "d"}, "annotations": {"text": text, "labels": "a, size/XL, b"}}},
        "spawner": {"metadata": {"name": "fixer", "labels": {}}}, "user": "me",
    }))
}

fn compile(source: &str) -> Result<Arc<TeraTemplate>, String> {
    let template = tera::compile([source].into_iter()).remove(source).unwrap()?;
    template.check_names(Roots::All)?;
    Ok(template)
}

fn render(source: &str) -> Result<String, Failure> {
    let template = compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    template.render(&context(), 4096, &mut Budget::default())
}

#[test]
fn what_templates_are_for() {
    for (source, expected) in [
        ("{{ item.url }}", "https://x"),
        ("{{ item.title }}", "{{ item.url }} & <b>"),
        (
            "{{ item.labels[0] }} for {{ user }} in [a]",
            "priority/critical for me in [a]",
        ),
        (
            "{{ item.labels | first | replace(from=\"priority/\", to=\"\") }}",
            "critical",
        ),
        (
            "{{ item.labels | starting_with(pat=\"priority/\") | first }}",
            "priority/critical",
        ),
        ("{{ item.labels | starting_with(pat=\"size/\") | join }}", ""),
        (
            "{{ task.metadata.annotations.labels | split(pat=\", \") | starting_with(pat=\"size/\") | first }}",
            "size/XL",
        ),
        ("{{ task.metadata.labels[\"a.b/c\"] }}", "d"),
        ("{{ spawner.metadata.labels.team | default(value=\"none\") }}", "none"),
        (
            "{% if item.number > 40 %}big{% elif user %}x{% else %}small{% endif %}",
            "big",
        ),
        ("{{ \"big\" if item.number > 40 else \"small\" }}", "big"),
        ("{{ [item.number, user] | join(sep=\"-\") }}", "42-me"),
        ("https://{{ user }}/~{{ user }}", "https://me/~me"),
        (
            "{{ item.labels | sort | unique | join(sep=\",\") }}",
            "bug,priority/critical",
        ),
        ("{{ \"it's bob's own-goal\" | title }}", "It's Bob's Own-Goal"),
        ("{{ \"éa B\" | capitalize }}{{ user | upper }}", "Éa bME"),
        ("{{ \"abcdef\" | truncate(length=3) }}", "abc…"),
        ("{# for notes #}{{ user }}", "me"),
        ("{%- if user -%} a {%- endif %}", "a"),
    ] {
        assert_eq!(render(source).as_deref(), Ok(expected), "{source}");
    }
}

/// The recipe "Nodes by priority" of docs/metadata.md, over the labels as Kelos writes them.
#[test]
fn a_recipe_finds_a_label_among_those_that_kelos_joins() {
    let docs = include_str!("../../../docs/metadata.md");
    let recipe = docs.split_once("### Nodes by priority").unwrap().1;
    let line = recipe.split_once("size: >-\n").unwrap().1;
    let source = line.split_once("}}").unwrap().0.trim().replace("\n      ", " ") + "}}";
    for (labels, size) in [
        ("size/XL", "XL"),
        ("size/XL, bug", "XL"),
        ("bug, size/XL", "XL"),
        ("bug, priority/critical, size/XL, good first issue", "XL"),
        ("bug, oversize/XL", ""),
        ("", ""),
    ] {
        let annotations = json!({"example.com/item-labels": labels});
        let context = Context::from(json!({"task": {"metadata": {"annotations": annotations}}}));
        let template = compile(&source).unwrap_or_else(|error| panic!("{source}: {error}"));
        let text = template.render(&context, 4096, &mut Budget::default());
        assert_eq!(text.as_deref(), Ok(size), "{labels}");
    }
}

#[test]
fn a_refused_template_has_position_and_reason() {
    for (source, message) in [
        ("{{ item.url", "line 1, column"),
        (
            "a\n{{ item.url | nope }}",
            "line 2, column 15: the filter nope is not supported",
        ),
        ("{{ user | indent }}", "the filter indent is not supported"),
        ("{{ nope }}", "nope is not known; there are item, task"),
        (
            "é{% include \"x\" %}",
            "line 1, column 5: {% include %} is not supported; there are if, elif and else",
        ),
        ("{% set x = 1 %}", "{% set %} is not supported"),
        ("{%- \n set x = 1 %}", "{% set %} is not supported"),
        ("{% for a in item.labels %}{% endfor %}", "{% for %} is not supported"),
        ("{% raw %}{% endraw %}", "{% raw %} is not supported"),
        ("{% <x/> %}", "{%%} is not supported"),
        ("{{ \"{% set %}\" }}", "{% set %} is not supported"),
        ("{# {% set %} #}", "{% set %} is not supported"),
        ("{{ [a for a in item.labels] }}", "for … in is not supported"),
        ("{{ [1for\n a , b in item.labels] }}", "for … in is not supported"),
        ("{{ user ~ user }}", "line 1, column 9: ~ is not supported"),
        ("{{ 'a'~'b' }}", "~ is not supported"),
        ("{{ get_env(name=\"HOME\") }}", "get_env"),
        ("{{ now() }}", "now"),
        ("{{ range (end=9) }}", "functions are not supported"),
        ("{{ throw(message=\"x\") }}", "functions are not supported"),
        ("{{ __tera_context }}", "__tera… is not supported"),
        ("{{ <button/> }}", "Unknown component `button`"),
        ("{{ super() }}{% if item.number %}x", ""),
    ] {
        let error = compile(source).unwrap_err();
        assert!(error.contains(message) && !error.contains('\n'), "{source}: {error}");
    }
    let long = format!("{{{{ user }}}}{}", "x".repeat(MAX_SOURCE));
    assert!(compile(&long).unwrap_err().contains("longer than 2048 bytes"));
    let many = format!("{{{{ user {} }}}}", "| trim ".repeat(17));
    assert!(compile(&many).unwrap_err().contains("more than 16 filters"));
}

#[test]
fn what_would_be_large_costs_its_limit() {
    let text = "task.metadata.annotations.text";
    let list = format!("[{}]", format!("{text}, ").repeat(40));
    for source in [
        format!("{{{{ {text} | replace(from=\"x\", to=\"xx\") }}}}"),
        format!("{{{{ {list} | join | trim }}}}"),
        format!("{{{{ {list} | str | trim }}}}"),
        format!("{{{{ {list} }}}}"),
        format!("{{{{ {text} | truncate(length=4000, end={text}) }}}}"),
        format!("{{{{ {text} | split(pat=\"\") | length }}}}"),
        format!("{{{{ {text} }}}}!"),
    ] {
        let failure = render(&source).unwrap_err();
        assert_eq!(failure.cause, Cause::Limit, "{source}: {}", failure.message);
    }
    let failure = render("{{ [item.labels] | sort }}").unwrap_err();
    assert_eq!(failure.cause, Cause::Misuse, "{}", failure.message);
}

#[test]
fn a_missing_value_has_a_cause_of_its_own() {
    for source in [
        "{{ item.author }}",
        "{{ item.author.name }}",
        "{{ item.labels[7] }}",
        "{{ task.metadata.labels.size }}",
        "{{ [task.metadata.labels.size, \"-x\"] | join }}",
        "{{ [\"x\", {\"a\": [item.author]}] | join(sep=\"-\") }}",
        "{{ [item.labels | nth(n=7), \"-x\"] | join }}",
        "{{ {\"a\": item.author} | values | join }}",
        "{{ item.author | str }}-x",
        "{{ [item.author, user] | str }}",
        "{{ [item.author, user] | sort | join }}",
        "{{ [item.author] | unique | join }}",
        "{{ item.labels | starting_with(pat=\"size/\") | first | replace(from=\"size/\", to=\"\") }}",
    ] {
        let failure = render(source).unwrap_err();
        assert_eq!(failure.cause, Cause::Missing, "{source}: {}", failure.message);
        assert!(failure.message.starts_with("line 1, column"), "{}", failure.message);
    }
}

#[test]
fn a_budget_ends_with_what_it_does_not_suffice_for() {
    let go = |source: &str| Text::Go(GoTemplate::compile(source).unwrap());
    let tera = |source: &str| Text::Tera(compile(source).unwrap());
    let spent = |text: &Text, left: u32| {
        let mut budget = Budget { left };
        let context = context();
        let cause = text
            .render(|| &context, 4096, &mut budget)
            .err()
            .map(|failure| failure.cause);
        (cause, budget.left)
    };
    let (url, shout) = (tera("{{ item.url }}"), tera("{{ user | upper }}"));
    assert_eq!(spent(&url, 1_000), (None, 1_000 - 50 - 14));
    assert_eq!(spent(&shout, 1_000), (None, 1_000 - 50 - 18 - 32));
    assert_eq!(spent(&shout, 99), (Some(Cause::Budget), 0));
    let long = go("{{range 1000000}}{{end}}");
    assert_eq!(spent(&long, 100_000), (Some(Cause::Limit), 100_000 - 10_050));
    assert_eq!(spent(&long, 5_000), (Some(Cause::Budget), 0));
    assert_eq!(spent(&Text::Literal("x".into()), 0), (None, 0));
}

fn problems(spec: serde_json::Value) -> Vec<String> {
    let spec = serde_json::from_value(spec).unwrap();
    let problems = crate::Policy::namespaced("team", "p", &spec).err().unwrap_or_default();
    problems.iter().map(ToString::to_string).collect()
}

/// A scanner took this for one text and a comment; Tera read 40 assignments, each of which doubles a text.
#[test]
fn what_a_second_lexer_would_read_differently_is_refused() {
    let double = "{% set a=a~a %}".repeat(40);
    let source = format!("{{#}}{{{{ \" #}}{{% set a='aaaaaaaaaaaaaaaa' %}}{double}{{# \" }}}} #}}");
    for section in [
        json!({"metadata": {"labels": {"x": source}}}),
        json!({"metadata": {"annotations": {"x": source}}}),
        json!({"queueName": source}),
        json!({"queueName": "q", "queuePriorityClass": source}),
        json!({"failurePolicy": {"itemKey": source}}),
    ] {
        let found = problems(section);
        assert!(
            found.len() == 1 && found[0].contains("{% set %} is not supported"),
            "{found:?}"
        );
    }
}

/// What an author may mean is not refused because a sample is another Task.
#[test]
fn a_template_that_may_suit_a_task_is_accepted_and_one_that_never_works_is_refused() {
    enum Expected {
        Fits,
        Doubt(&'static str),
        Refused(&'static str),
    }
    use Expected::{Doubt, Fits, Refused};
    for (engine, source, expected) in [
        ("GoTemplate", "{{slice .task.spec.model 0 3}}", Fits),
        ("GoTemplate", "{{index .task.spec.dependsOn 1}}", Fits),
        ("Tera", "{{ task.spec.dependsOn[1] }}", Fits),
        ("Tera", "{{ task.spec.branch | split(pat=\"/\") | last | upper }}", Fits),
        ("Tera", "{{ task.metadata.labels.stage }}", Fits),
        ("Tera", "{{ spawner.metadata.labels.team | upper }}", Fits),
        ("Tera", "{{ item.id | int }}", Fits),
        (
            "GoTemplate",
            "{{slice .task.spec.model 0 40}}",
            Doubt("index out of range: 40"),
        ),
        (
            "GoTemplate",
            "{{index .task.spec.dependsOn 7}}",
            Doubt("index out of range: 7"),
        ),
        ("Tera", "{{ task.spec.dependsOn[7] | upper }}", Doubt("undefined")),
        (
            "Tera",
            "{{ item.id | split(pat=\"-\") | nth(n=1) | upper }}",
            Doubt("none"),
        ),
        ("Tera", "{{ task.spec.model | int }}", Doubt("line 1, column")),
        ("Tera", "{{ task.spec.promt }}", Refused("Field `promt` is not defined")),
        ("Tera", "{{ item.titel | upper }}", Refused("line 1, column")),
        ("Tera", "{{ item.number | upper }}", Refused("line 1, column")),
        ("GoTemplate", "{{.Titel}}", Refused(".Titel is not there")),
        (
            "GoTemplate",
            "{{.task.spec.prompt}}",
            Refused(".task.spec.prompt is not there"),
        ),
        (
            "GoTemplate",
            "{{printf \"%d\" .Title}}",
            Refused("printf gives %!d(string="),
        ),
        (
            "GoTemplate",
            "{{range 1000000}}{{end}}",
            Refused("more than 10000 steps"),
        ),
        (
            "GoTemplate",
            "{{nope .Title}}",
            Refused("function \"nope\" not defined"),
        ),
        ("Tera", "{{ user | nope }}", Refused("the filter nope is not supported")),
    ] {
        let spec = json!({"metadata": {"engine": engine, "annotations": {"x": source}}});
        let policy = crate::Policy::namespaced("team", "p", &serde_json::from_value(spec).unwrap());
        let problems = |problems: &[Problem]| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let (found, part) = match (policy, expected) {
            (Ok(policy), Fits) => (problems(policy.doubts()), None),
            (Ok(policy), Doubt(part)) => (problems(policy.doubts()), Some(part)),
            (Err(errors), Refused(part)) => (problems(&errors), Some(part)),
            (Ok(policy), Refused(_)) => panic!("{source} is accepted: {:?}", policy.doubts()),
            (Err(errors), _) => panic!("{source} is refused: {errors:?}"),
        };
        match part {
            None => assert_eq!(found, "", "{source}"),
            Some(part) => assert!(
                found.starts_with("spec.metadata.annotations[x]: ") && found.contains(part),
                "{source}: {found}"
            ),
        }
    }
}

#[test]
fn a_policy_has_so_many_templates_of_such_a_length() {
    let keys = |count: usize, source: &str| -> serde_json::Map<_, _> {
        (0..count).map(|key| (format!("k{key:02}"), json!(source))).collect()
    };
    let section = |labels: usize, annotations: usize, source: &str| json!({"metadata": {"labels": keys(labels, source), "annotations": keys(annotations, source)}});
    assert_eq!(problems(section(32, 32, "{{ item.url }}")), Vec::<String>::new());
    assert_eq!(
        problems(section(33, 32, "{{ item.url }}")),
        ["spec.metadata: labels and annotations have 65 keys together; a policy may have 64"]
    );
    let long = format!("{{{{ user }}}}{}", "x".repeat(1_990));
    assert_eq!(problems(section(0, 8, &long)), Vec::<String>::new());
    assert_eq!(
        problems(section(0, 9, &long)),
        ["spec.metadata: the templates have 18000 bytes together; those of a policy may have 16384"]
    );
    for engine in ["Tera", "GoTemplate"] {
        let long = format!("{{{{/* */}}}}{}", "x".repeat(MAX_SOURCE));
        let found = problems(json!({"metadata": {"engine": engine, "labels": {"x": long}}}));
        assert_eq!(
            found,
            ["spec.metadata.labels[x]: the template is longer than 2048 bytes"]
        );
    }
}

#[test]
fn equal_templates_of_a_policy_are_compiled_once() {
    let labels = json!({"a": "{{ item.url }}", "b": "{{ item.url }}", "c": "{{ user }}"});
    let spec: TaskPolicySpec = serde_json::from_value(json!({"metadata": {"labels": labels}})).unwrap();
    let templates = Templates::of(&spec).unwrap();
    assert_eq!(templates.tera.len(), 2);
}

/// Filters and functions of Tera's own that are not ours would not be bounded; a new version may bring some.
#[test]
fn every_filter_and_function_of_tera_is_known() {
    let built_in = format!("{:?}", ::tera::Tera::new());
    for count in ["filters: 37,", "functions: 2,"] {
        assert!(
            built_in.contains(count),
            "{built_in}: see FILTERS in dialect.rs, register in filters.rs"
        );
    }
}

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
    static LONGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(length: usize) {
    LONGEST.set(LONGEST.get().max(length));
}

/// A filter that notes how often it runs and over what.
fn probe(value: ::tera::Value, _: ::tera::Kwargs, _: &::tera::State<'_>) -> ::tera::Value {
    CALLS.set(CALLS.get() + 1);
    note(value.as_str().map_or(0, str::len));
    value
}

/// An output that takes all, and notes the longest text.
struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        note(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Templates that bind, loop and join, in pieces around which lexers may disagree.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{{", "}}", "{%", "%}", "{#", "#}", "{#}", "{{-", "-}}", "{%-", "-%}", "{", "}", "'", "\"", "`", "\\", "-",
        " ", "\n", "\u{b}", "é", "[", "]", "(", ")", "?[", ".", "...", ",", "=", "<", "/>", "|", "~", "+", "*", "1",
        "1.", "for", "in", "if", "not", "and", "text", "list", "x", "raw", "endraw",
    ]);
    let phrase = prop::sample::select(vec![
        "{{ text | trim }}",
        "{{ [text | trim for x in list] }}",
        "{{ [1for x,y in list] }}",
        "{{ list | join | trim }}",
        "{{ text ~ text }}",
        "{{ (text ~text) | trim }}",
        "{{ [text, text] | str | trim }}",
        "{{ text | replace(from='a', to='aa') }}",
        "{{ text if list else 1 }}",
        "{% if text %}",
        "{% elif list %}",
        "{% else %}",
        "{% endif %}",
        "{% for x in list %}",
        "{% endfor %}",
        "{% set text = text ~ text %}{{ text }}",
        "{% for x in list %}{{ x | trim }}{% endfor %}",
        "{% set x %}{{ text }}{{ text }}{% endset %}",
        "{% filter trim %}",
        "{% endfilter %}",
        "{% raw %}",
        "{% endraw %}",
        "{% block b %}",
        "{% endblock %}",
        "{% component c(x) %}{{ x }}{{ x }}{% endcomponent %}",
        "{{ <c x={text}/> }}",
        "{{ \" #}",
        "{# \" }} #}",
        "{{ range(end=99) | trim }}",
    ]);
    let part = prop_oneof![2 => piece, 3 => phrase];
    // What a lexer that is wrong about a comment, a text or `raw` takes the rest for.
    let veil = prop::sample::select(vec![
        ("", ""),
        ("{#}{{ \" #}", "{# \" }} #}"),
        ("{{ '{#' }}", "{# #}"),
        ("{# {{ ' #}", "{# ' }} #}"),
        ("{# {% raw %} #}", "{# {% endraw %} #}"),
        ("{{ '\\' {# ' }}", "{# #}"),
        ("{{ `\" {#` }}", "{# ` #}"),
    ]);
    (veil, prop::collection::vec(part, 1..9)).prop_map(|((before, after), parts)| {
        let parts = parts.concat();
        format!("{before}{parts}{after}")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Judged by Tera itself: each filter of the source runs once at most, and no text is longer than those of the context.
    #[test]
    fn whatever_is_accepted_neither_loops_nor_lengthens(source in hostile()) {
        let mut engine = ::tera::Tera::new();
        filters::register(&mut engine);
        engine.register_filter("trim", probe);
        if dialect::check(&source).is_ok() && engine.add_raw_template("t", &source).is_ok() {
            let mut context = ::tera::Context::new();
            context.insert("text", &"a".repeat(4096));
            context.insert("list", &vec!["a"; 64]);
            CALLS.set(0);
            LONGEST.set(0);
            let _ = engine.render_to("t", &context, Output);
            prop_assert!(CALLS.get() <= source.matches('|').count(), "{source:?}: {} calls", CALLS.get());
            prop_assert!(LONGEST.get() <= 4096, "{source:?}: {} bytes", LONGEST.get());
        }
    }
}
