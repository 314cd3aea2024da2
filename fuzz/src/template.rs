//! Templates by grammar: most of them parse, so that what comes behind the parser is reached. Both languages, with what is
//! allowed, what is refused, and what makes much out of little.

use arbitrary::{Result, Unstructured};
use fastrand::Rng;

/// How deep expressions nest on purpose; mutations of the text nest them further.
const DEPTH: u8 = 5;

const PATHS: [&str; 20] = [
    "item.id",
    "item.title",
    "item.labels",
    "item.number",
    "item.body",
    "item.url",
    "task.metadata.name",
    "task.metadata.labels",
    "task.metadata.annotations",
    "task.metadata.labels.team",
    "task.spec.model",
    "task.spec.workspaceRef.name",
    "spawner.metadata.name",
    "spawner.metadata.labels",
    "namespace.labels",
    "namespace.name",
    "workspace.repo",
    "user",
    "item",
    "missing.name",
];
const FILTERS: [&str; 37] = [
    "upper",
    "lower",
    "trim",
    "trim_start",
    "trim_end",
    "truncate",
    "replace",
    "join",
    "split",
    "default",
    "str",
    "int",
    "float",
    "length",
    "first",
    "last",
    "nth",
    "reverse",
    "sort",
    "unique",
    "keys",
    "values",
    "pairs",
    "get",
    "title",
    "capitalize",
    "round",
    "abs",
    "indent",
    "escape",
    "escape_html",
    "escape_xml",
    "newlines_to_br",
    "pluralize",
    "wordcount",
    "safe",
    "group_by",
];
const ARGUMENTS: [&str; 13] = [
    "from",
    "to",
    "sep",
    "pat",
    "value",
    "length",
    "end",
    "n",
    "width",
    "base",
    "attribute",
    "start",
    "step_by",
];
const OPERATORS: [&str; 19] = [
    "~", "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "and", "or", "in", "not in", "is",
];
const LITERALS: [&str; 22] = [
    "''",
    "'a'",
    "'aaaaaaaaaaaaaaaa'",
    "\"\\n\"",
    "`b`",
    "0",
    "1",
    "-1",
    "63",
    "4096",
    "1000000",
    "9223372036854775807",
    "18446744073709551616",
    "0.1",
    "1e308",
    "true",
    "false",
    "none",
    "[]",
    "{}",
    "'ﬃ'",
    "'İ'",
];
const TESTS: [&str; 10] = [
    "defined",
    "undefined",
    "string",
    "number",
    "iterable",
    "odd",
    "divisible_by(divisor=0)",
    "containing(pat='a')",
    "starting_with('a')",
    "matching(pat='(a+)+$')",
];
const JUNK: [&str; 20] = [
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "{#}",
    "{{-",
    "-}}",
    "{%-",
    "-%}",
    "{{{",
    "}}}",
    "\"",
    "'",
    "`",
    "{% raw %}",
    "{% endraw %}",
    "\u{0}",
    "\u{202e}",
];
const GO_NAMES: [&str; 14] = [
    ".",
    "$",
    ".Title",
    ".Labels",
    ".Number",
    ".ID",
    ".Body",
    ".task.metadata.labels",
    ".task.metadata.name",
    ".user",
    ".Nope",
    "nil",
    "true",
    ".namespace.labels",
];
const GO_FUNCTIONS: [&str; 15] = [
    "print", "printf", "println", "len", "index", "slice", "and", "or", "not", "eq", "lt", "ge", "html", "urlquery",
    "call",
];
const GO_LITERALS: [&str; 14] = [
    "\"a\"",
    "`b`",
    "'c'",
    "0",
    "-1",
    "1e3",
    "0x1p-2",
    "1i",
    "9223372036854775807",
    "\"%s\"",
    "\"%1000000d\"",
    "\"%-*.*f|%q|%x\"",
    "\"%[2]v%!\"",
    "\"%010000v\"",
];

/// A template, for [`crate::json::mutate`].
pub fn any(rng: &mut Rng) -> String {
    let mut bytes = vec![0; rng.usize(8..256)];
    rng.fill(&mut bytes);
    let mut source = Unstructured::new(&bytes);
    let template = if rng.u8(..3) == 0 {
        go(&mut source)
    } else {
        tera(&mut source)
    };
    template.unwrap_or_default()
}

fn tera(u: &mut Unstructured<'_>) -> Result<String> {
    let mut text = String::new();
    for _ in 0..u.int_in_range(1..=4)? {
        text.push_str(&tera_piece(u, DEPTH)?);
    }
    Ok(text)
}

fn tera_piece(u: &mut Unstructured<'_>, depth: u8) -> Result<String> {
    let Some(deeper) = depth.checked_sub(1) else {
        return Ok("a".to_owned());
    };
    let value = expression(u, deeper)?;
    Ok(match u.int_in_range(0..=15)? {
        0 => format!("text-{}", u.choose(&LITERALS)?),
        1 => (*u.choose(&JUNK)?).to_owned(),
        2 => format!("{{# {value} #}}"),
        3 => format!("{{% if {value} %}}{}{{% endif %}}", tera_piece(u, deeper)?),
        4 => format!(
            "{{%- if {value} -%}}{}{{% elif {} %}}{}{{% else %}}{}{{% endif %}}",
            tera_piece(u, deeper)?,
            expression(u, deeper)?,
            tera_piece(u, deeper)?,
            tera_piece(u, deeper)?
        ),
        5 => refused(u, &value, deeper)?,
        _ => format!("{{{{ {value} }}}}"),
    })
}

/// What a label value does not need.
fn refused(u: &mut Unstructured<'_>, value: &str, depth: u8) -> Result<String> {
    let body = tera_piece(u, depth)?;
    Ok(match u.int_in_range(0..=9)? {
        0 => format!("{{% set a = {value} %}}{{{{ a ~ a }}}}"),
        1 => format!("{{% for a in {value} %}}{body}{{{{ a }}}}{{% endfor %}}"),
        2 => format!("{{% for k, v in {value} %}}{body}{{% else %}}{body}{{% endfor %}}"),
        3 => format!("{{% filter upper | replace(from='a', to='aa') %}}{body}{{% endfilter %}}"),
        4 => format!("{{% block a %}}{body}{{% endblock a %}}"),
        5 => format!("{{% macro a(b=1) %}}{body}{{% endmacro %}}{{{{ self::a() }}}}"),
        6 => "{% include 'value' %}".to_owned(),
        7 => "{% extends 'value' %}".to_owned(),
        8 => format!("{{% set %}}{body}{{% endset %}}"),
        _ => format!("{{{{ [a for a in {value} if a] }}}}"),
    })
}

fn expression(u: &mut Unstructured<'_>, depth: u8) -> Result<String> {
    let Some(deeper) = depth.checked_sub(1) else {
        return Ok((*u.choose(&PATHS)?).to_owned());
    };
    Ok(match u.int_in_range(0..=17)? {
        0..=2 => (*u.choose(&PATHS)?).to_owned(),
        3 => (*u.choose(&LITERALS)?).to_owned(),
        4..=6 => format!(
            "{} {} {}",
            expression(u, deeper)?,
            u.choose(&OPERATORS)?,
            expression(u, deeper)?
        ),
        7..=10 => filtered(u, deeper)?,
        11 => format!("({})", expression(u, deeper)?),
        12 => format!("[{}, {}]", expression(u, deeper)?, expression(u, deeper)?),
        13 => format!("{{'a': {}}}", expression(u, deeper)?),
        14 => format!("{}[{}]", expression(u, deeper)?, expression(u, deeper)?),
        15 => format!(
            "{}[{}:{}]",
            expression(u, deeper)?,
            expression(u, deeper)?,
            expression(u, deeper)?
        ),
        16 => format!("{} is {}", expression(u, deeper)?, u.choose(&TESTS)?),
        _ => match u.int_in_range(0..=4)? {
            0 => format!("range(end={})", expression(u, deeper)?),
            1 => format!("not {}", expression(u, deeper)?),
            2 => format!("-{}", expression(u, deeper)?),
            3 => format!(
                "{} if {} else {}",
                expression(u, deeper)?,
                expression(u, deeper)?,
                expression(u, deeper)?
            ),
            _ => format!("{}?.a", u.choose(&PATHS)?),
        },
    })
}

/// An expression through filters, often the same one again and again.
fn filtered(u: &mut Unstructured<'_>, depth: u8) -> Result<String> {
    let mut text = expression(u, depth)?;
    for _ in 0..u.int_in_range(1..=3)? {
        let mut arguments = Vec::new();
        for _ in 0..u.int_in_range(0..=2)? {
            arguments.push(format!(
                "{}={}",
                u.choose(&ARGUMENTS)?,
                expression(u, depth.saturating_sub(2))?
            ));
        }
        let filter = format!(" | {}({})", u.choose(&FILTERS)?, arguments.join(", "));
        text.push_str(&filter.repeat(u.int_in_range(1..=9)?));
    }
    Ok(text)
}

fn go(u: &mut Unstructured<'_>) -> Result<String> {
    let mut text = String::new();
    for _ in 0..u.int_in_range(1..=4)? {
        text.push_str(&go_piece(u, DEPTH)?);
    }
    Ok(text)
}

fn go_piece(u: &mut Unstructured<'_>, depth: u8) -> Result<String> {
    let Some(deeper) = depth.checked_sub(1) else {
        return Ok("a".to_owned());
    };
    let value = pipeline(u, deeper)?;
    Ok(match u.int_in_range(0..=13)? {
        0 => (*u.choose(&JUNK)?).to_owned(),
        1 => format!("{{{{/* {value} */}}}}"),
        2 => format!("{{{{if {value}}}}}{}{{{{else}}}}b{{{{end}}}}", go_piece(u, deeper)?),
        3 => format!("{{{{with {value}}}}}{}{{{{end}}}}", go_piece(u, deeper)?),
        4 => format!(
            "{{{{range $i, $e := {value}}}}}{}{{{{$e}}}}{{{{end}}}}",
            go_piece(u, deeper)?
        ),
        5 => format!("{{{{$v := {value}}}}}{{{{$v}}}}"),
        6 => format!("{{{{define \"a\"}}}}{{{{template \"a\"}}}}{{{{end}}}}{{{{template \"a\" {value}}}}}"),
        _ => format!("{{{{- {value} -}}}}"),
    })
}

fn pipeline(u: &mut Unstructured<'_>, depth: u8) -> Result<String> {
    let Some(deeper) = depth.checked_sub(1) else {
        return Ok((*u.choose(&GO_NAMES)?).to_owned());
    };
    Ok(match u.int_in_range(0..=9)? {
        0 | 1 => (*u.choose(&GO_NAMES)?).to_owned(),
        2 => (*u.choose(&GO_LITERALS)?).to_owned(),
        3 => format!("({})", pipeline(u, deeper)?),
        4 | 5 => format!("{} | {}", pipeline(u, deeper)?, u.choose(&GO_FUNCTIONS)?),
        _ => format!(
            "{} ({}) ({})",
            u.choose(&GO_FUNCTIONS)?,
            pipeline(u, deeper)?,
            pipeline(u, deeper)?
        ),
    })
}
