//! Policies that are refused with line and column; and a template that fails only when rendered never blocks.

use anyhow::ensure;
use serde_json::json;

use crate::support::{created_with_warnings, governed, labels, start, task, try_policy};

#[tokio::test]
async fn a_wrong_template_is_refused_with_line_and_column() -> anyhow::Result<()> {
    let fixture = start("refused").await?;
    for (engine, template, message) in [
        ("GoTemplate", "{{.Title", "line 1, column 1: unclosed action"),
        (
            "GoTemplate",
            "a\n{{ nope .Title }}",
            "line 2, column 4: function \"nope\" not defined",
        ),
        (
            "GoTemplate",
            "{{html .Title}}",
            "line 1, column 3: function \"html\" is not supported",
        ),
        (
            "GoTemplate",
            "{{if .Absent}}{{printf \"%T\" .Title}}{{end}}",
            "line 1, column 24: printf: the verb %T is not supported",
        ),
        ("GoTemplate", "{{.Titel}}", "line 1, column 3: .Titel is not there"),
        (
            "GoTemplate",
            "{{printf \"%d\" .Title}}",
            "line 1, column 3: printf gives %!d(string=",
        ),
        (
            "GoTemplate",
            "{{range 1000000000}}{{end}}",
            "line 1, column 9: more than 10000 steps",
        ),
        (
            "GoTemplate",
            "{{define \"r\"}}{{template \"r\"}}{{end}}{{template \"r\"}}",
            "nested more than 100 deep",
        ),
        ("GoTemplate", "{{printf \"%10000000d\" 1}}", "line 1, column 3"),
        ("Tera", "{{ item.url", "line 1, column"),
        (
            "Tera",
            "{{ item.url | nope }}",
            "line 1, column 15: the filter nope is not supported",
        ),
        ("Tera", "{{ nope }}", "nope is not known"),
        (
            "Tera",
            "{{ item.titel }}",
            "line 1, column 9: Field `titel` is not defined",
        ),
        (
            "Tera",
            "{% include \"x\" %}",
            "line 1, column 4: {% include %} is not supported",
        ),
        (
            "Tera",
            "{% set x = 1 %}",
            "line 1, column 4: {% set %} is not supported",
        ),
        ("Tera", "{{ get_env(name=\"HOME\") }}", "get_env"),
        // What Tera and a second lexer would read differently.
        (
            "Tera",
            "{#}{{ \" #}{% set a='aaaaaaaaaaaaaaaa' %}{% set a=a~a %}{# \" }} #}",
            "{% set %} is not supported",
        ),
        (
            "Tera",
            "{% for a in item.labels %}{% endfor %}",
            "line 1, column 4: {% for %} is not supported; there are if, elif and else",
        ),
    ] {
        let spec = json!({"metadata": {"engine": engine, "annotations": {"example.com/note": template}}});
        let refused = try_policy(&fixture, &spec).await?.stderr_failed()?;
        let field = "spec.metadata.annotations[example.com/note]";
        ensure!(
            refused.contains(field) && refused.contains(message),
            "{template}: {refused}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn keys_that_other_controllers_use_are_refused() -> anyhow::Result<()> {
    let fixture = start("keys").await?;
    let long = format!("example.com/{}", "k".repeat(400));
    for (map, key, message) in [
        ("labels", "kelos.dev/taskspawner", "Kelos uses keys of kelos.dev"),
        ("annotations", "kelos.dev/source-number", "Kelos uses keys of kelos.dev"),
        ("labels", "taskgate.dev/work-item", "taskgate sets keys of taskgate.dev"),
        (
            "labels",
            "kueue.x-k8s.io/queue-name",
            "taskgate sets keys of taskgate.dev and kueue.x-k8s.io itself",
        ),
        ("labels", "kubernetes.io/arch", "reserved for Kubernetes"),
        ("labels", "batch.kubernetes.io/job-name", "reserved for Kubernetes"),
        ("labels", "a/b/c", "not a legal key"),
        ("labels", "-edge", "not a legal key"),
        ("labels", long.as_str(), "not a legal key"),
    ] {
        let spec = json!({"metadata": {(map): {(key): "x"}}});
        let refused = try_policy(&fixture, &spec).await?.stderr_failed()?;
        ensure!(refused.contains(message), "{key}: {refused}");
    }
    let spec = json!({"metadata": {"labels": {"team": "not legal"}}});
    let refused = try_policy(&fixture, &spec).await?.stderr_failed()?;
    ensure!(
        refused.contains("spec.metadata.labels[team]: not a legal label value"),
        "{refused}"
    );
    let spec = json!({"metadata": {"labels": {"team": "{{ user }}"}, "missingValue": "not legal"}});
    let refused = try_policy(&fixture, &spec).await?.stderr_failed()?;
    ensure!(refused.contains("spec.metadata.missingValue"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_template_that_fails_only_when_rendered_never_blocks_the_task() -> anyhow::Result<()> {
    let long = "x".repeat(4_000);
    let section = json!({
        "engine": "GoTemplate",
        "labels": {
            "missing": "{{.task.metadata.labels.size}}",
            "fine": "{{.Number}}",
        },
        "annotations": {
            "misuse": "{{len .task.metadata.annotations}}{{.task.metadata.annotations.note.deeper}}",
            "steps": "{{with .task.metadata.annotations.note}}{{range 100000000}}{{end}}{{end}}",
            "output": "{{with .task.metadata.annotations.note}}{{range 1000}}{{$.task.metadata.annotations.note}}{{end}}{{end}}",
        },
    });
    let fixture = governed("blocks", section).await?;
    let mut mine = task("fixer-42");
    mine["metadata"]["annotations"]["note"] = json!(long);
    let began = std::time::Instant::now();
    let (stored, warnings) = created_with_warnings(&fixture, &mine).await?;
    ensure!(labels(&stored)["fine"] == "42", "{stored}");
    for (key, why) in [
        ("missing", ".task.metadata.labels.size is not there"),
        ("misuse", "can't evaluate field deeper in type string"),
        ("steps", "more than 10000 steps"),
        ("output", "the output is longer than 16384 bytes"),
    ] {
        let told = |warning: &&String| warning.contains(&format!("left out {key}: ")) && warning.contains(why);
        ensure!(warnings.iter().filter(told).count() == 1, "{key}: {warnings:?}");
    }
    ensure!(
        began.elapsed() < taskgate_e2e::PATIENCE,
        "a template that never ends was waited for"
    );
    Ok(())
}

#[tokio::test]
async fn the_annotations_of_a_task_stay_bounded() -> anyhow::Result<()> {
    let big = "{{with .task.metadata.annotations.note}}{{range 16}}{{$.task.metadata.annotations.note}}{{end}}{{end}}";
    let annotations: serde_json::Map<_, _> = (0..12).map(|index| (format!("big-{index:02}"), json!(big))).collect();
    let fixture = governed("bounded", json!({"engine": "GoTemplate", "annotations": annotations})).await?;
    let mut mine = task("fixer-42");
    mine["metadata"]["annotations"]["note"] = json!("x".repeat(1_000));
    let (stored, warnings) = created_with_warnings(&fixture, &mine).await?;
    let size = stored["metadata"]["annotations"].to_string().len();
    ensure!((100_000..140_000).contains(&size), "{size} bytes");
    ensure!(
        warnings
            .iter()
            .any(|warning| warning.contains("annotations would be larger than 128 KiB")),
        "{warnings:?}"
    );
    Ok(())
}
