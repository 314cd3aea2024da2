//! Hostile values: rendered as data, legal, and never evaluated again.

use anyhow::ensure;
use serde_json::json;
use taskgate_e2e::Fixture;

use crate::support::{annotations, apply_policy, governed, labels, start, task};

const HOSTILE: [&str; 14] = [
    "\"; kubectl delete namespace prod; echo \"",
    "two\nlines\r\nand three",
    "{{.Number}} {{ item.number }}",
    "{% for i in range(end=9) %}x{% endfor %}",
    "${jndi:ldap://evil}",
    "zero\u{200b}width\u{feff}",
    "\u{202e}gnp.exe",
    "😀🦀",
    "-leading-dash",
    "trailing.",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "$(reboot)",
    "ÄÖÜ",
];

#[tokio::test]
async fn a_hostile_value_becomes_a_legal_label_and_an_annotation_as_it_is() -> anyhow::Result<()> {
    let fixture = start("hostile").await?;
    for (engine, template) in [
        ("Tera", "{{ task.metadata.annotations.title }}"),
        ("GoTemplate", "{{.task.metadata.annotations.title}}"),
    ] {
        let section = json!({"engine": engine, "labels": {"title": template}, "annotations": {"copy": template}});
        apply_policy(&fixture, "agents", json!({"metadata": section})).await?;
        let mut values = Vec::new();
        for hostile in HOSTILE {
            let mut mine = task("fixer-42");
            mine["metadata"]["annotations"]["title"] = json!(hostile);
            let shown = fixture.dry_run(&mine).await?;
            ensure!(annotations(&shown)["copy"] == hostile, "{engine} {hostile:?}: {shown}");
            let label = labels(&shown)["title"].as_str().unwrap_or_default().to_owned();
            let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            ensure!(
                !label.is_empty() && label.len() <= 63 && label.chars().all(legal),
                "{hostile:?}: {label}"
            );
            ensure!(
                !values.contains(&label),
                "{hostile:?} became what another became: {label}"
            );
            values.push(label);
        }
    }
    Ok(())
}

#[tokio::test]
async fn length_and_emptiness_are_defined() -> anyhow::Result<()> {
    let section = json!({"engine": "GoTemplate", "labels": {"title": "{{.task.metadata.annotations.title}}"}});
    let fixture = governed("length", section.clone()).await?;
    let label = async |fixture: &Fixture<'_>, title: &str| {
        let mut mine = task("fixer-42");
        mine["metadata"]["annotations"]["title"] = json!(title);
        let shown = fixture.dry_run(&mine).await?;
        anyhow::Ok(labels(&shown)["title"].clone())
    };
    ensure!(
        label(&fixture, &"v".repeat(63)).await? == "v".repeat(63),
        "63 characters are legal"
    );
    let cut = label(&fixture, &"v".repeat(64)).await?;
    let cut = cut.as_str().unwrap_or_default();
    ensure!(
        cut.len() == 63 && cut.starts_with(&format!("{}-", "v".repeat(54))),
        "{cut}"
    );
    ensure!(label(&fixture, "").await?.is_null(), "no text, no label");
    let mut skipping = section;
    skipping["illegalValue"] = json!("Skip");
    apply_policy(&fixture, "agents", json!({"metadata": skipping})).await?;
    ensure!(
        label(&fixture, "priority/critical").await?.is_null(),
        "not legal, so left out"
    );
    ensure!(label(&fixture, "critical").await? == "critical");
    Ok(())
}
