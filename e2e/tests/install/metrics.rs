//! The documentation of metrics is right: the table, the alerts with their pages, the dashboard.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use kelos_standin::CRDS;
use serde_json::Value;
use taskgate_e2e::{ControlPlane, Gate, PATIENCE, Shared, eventually, tool};
use tokio::process::Command;

use crate::support::{project, sources, task};

static PLANE: Shared = Shared::new(|| ControlPlane::builder().crds(CRDS));

/// What is said of a metric, or seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    kind: String,
    labels: BTreeSet<String>,
    help: String,
}

fn read(path: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(project(path)).with_context(|| path.to_owned())
}

/// The table of docs/metrics.md.
fn table() -> anyhow::Result<BTreeMap<String, Said>> {
    let text = read("docs/metrics.md")?;
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let [name, kind, labels, help] = row
            .trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect::<Vec<_>>()
            .try_into()
            .map_err(|row| anyhow::anyhow!("not four columns: {row:?}"))?;
        let kind = kind.split(',').next().unwrap_or_default().to_owned();
        let labels = labels
            .split(", ")
            .filter(|label| !label.is_empty())
            .map(ToOwned::to_owned)
            .collect();
        let help = help.to_owned();
        Ok((name.trim_matches('`').to_owned(), Said { kind, labels, help }))
    })
    .collect()
}

/// What a scrape shows. The names of counters are those of their samples.
fn shown(text: &str) -> BTreeMap<String, Said> {
    let mut shown = BTreeMap::<String, Said>::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kind.clone_into(&mut shown.entry(name.to_owned()).or_default().kind);
        } else if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            // The library ends it with a full stop.
            let said = shown.entry(name.to_owned()).or_default();
            help.trim_end_matches('.').clone_into(&mut said.help);
        } else if let Some((name, rest)) = line.split_once('{') {
            let labels = rest.split('}').next().unwrap_or_default();
            let keys = labels
                .split("\",")
                .filter_map(|label| label.split_once('='))
                .map(|(key, _)| key.to_owned());
            let base = ["_bucket", "_sum", "_count", "_total"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix));
            let family = shown.get_mut(base.unwrap_or(name));
            if let Some(said) = family {
                said.labels.extend(keys.filter(|key| key != "le"));
            }
        }
    }
    let name = |name: String, said: &Said| if said.kind == "counter" { name + "_total" } else { name };
    shown
        .into_iter()
        .map(|(metric, said)| (name(metric, &said), said))
        .collect()
}

#[tokio::test]
async fn the_table_of_metrics_is_what_is_scraped() -> anyhow::Result<()> {
    let cp = PLANE.get().await?;
    let gate = Gate::start(cp).await?;
    let ns = cp.namespace("metrics").await?;
    eventually("a review is counted", PATIENCE, || async {
        ns.dry_run(&task("probe", &serde_json::json!({}))).await?;
        ensure!(gate.metrics().await?.sum("taskgate_reviews_total") > 0.0);
        Ok(())
    })
    .await?;
    let text = gate.admin("/metrics").await?;
    let (table, shown) = (table()?, shown(&text));
    for (name, seen) in &shown {
        let said = table
            .get(name)
            .with_context(|| format!("{name} is not in docs/metrics.md: {seen:?}"))?;
        ensure!(
            (&said.kind, &said.help) == (&seen.kind, &seen.help),
            "{name}: said {said:?}, shown {seen:?}"
        );
        // Labels show once something was counted.
        ensure!(
            seen.labels.is_empty() || seen.labels == said.labels,
            "{name}: said {said:?}, shown {seen:?}"
        );
        let is_time = name
            .split('_')
            .any(|word| ["duration", "age", "left", "wait"].contains(&word));
        let in_seconds = !is_time || name.contains("seconds");
        ensure!(in_seconds, "{name} has no unit");
    }
    // What was never counted is not shown: there the sources say what it would be.
    let sources = sources(&project("."))?;
    for (name, said) in table.iter().filter(|(name, _)| !shown.contains_key(*name)) {
        let base = ["_total", "_seconds"]
            .iter()
            .fold(name.as_str(), |base, unit| base.strip_suffix(unit).unwrap_or(base));
        let base = base.strip_prefix("taskgate_").unwrap_or(base);
        let is_registered = sources.contains(&format!("\"{base}\"")) && sources.contains(&format!("\"{}\"", said.help));
        ensure!(is_registered, "in docs/metrics.md, but nowhere else: {name}, {said:?}");
    }
    let buckets: Vec<&str> = text
        .lines()
        .filter_map(|line| {
            line.strip_prefix("taskgate_review_duration_seconds_bucket{le=\"")?
                .split('"')
                .next()
        })
        .collect();
    ensure!(
        buckets.first().is_some_and(|first| first.parse() == Ok(0.00005)),
        "{buckets:?}"
    );
    Ok(())
}

/// Words of a query that are metrics of ours, and those that can only be labels.
fn check_query(query: &str, legend: &str, table: &BTreeMap<String, Said>) -> anyhow::Result<()> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words: Vec<&str> = query.split(|c| !is_word(c)).filter(|word| !word.is_empty()).collect();
    let ours: Vec<_> = words
        .iter()
        .filter(|word| word.starts_with("taskgate_") || word.starts_with("kelos_"))
        .collect();
    ensure!(!ours.is_empty(), "{query}: no metric of ours");
    let mut labels = BTreeSet::from(["le".to_owned()]);
    for metric in ours {
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| metric.strip_suffix(suffix));
        let said = table
            .get(*metric)
            .or_else(|| table.get(base?).filter(|said| said.kind == "histogram"))
            .with_context(|| format!("{query}: there is no metric {metric}"))?;
        let is_rated = query.contains("rate(") || query.contains("increase(");
        ensure!(
            said.kind == "gauge" || is_rated,
            "{query}: a {} without a rate",
            said.kind
        );
        labels.extend(said.labels.iter().cloned());
    }
    let grouped = query.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    let shown = legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next());
    let named = grouped.flat_map(|list| list.split(',')).chain(shown);
    for label in named.map(|label| label.trim().trim_start_matches("$labels.")) {
        ensure!(labels.contains(label), "{query}: {label:?} is no label of it");
    }
    Ok(())
}

/// How GitHub calls the place of a heading.
fn anchors(page: &str) -> BTreeSet<String> {
    let titles = page
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|rest| rest.trim_start_matches('#').trim());
    titles.map(|title| title.to_lowercase().replace(' ', "-")).collect()
}

#[test]
fn every_alert_asks_what_is_measured_and_has_its_page() -> anyhow::Result<()> {
    let table = table()?;
    let rule: Value = serde_saphyr::from_str(&read("manifests/components/monitoring/prometheus-rule.yaml")?)?;
    let alerts = rule["spec"]["groups"][0]["rules"].as_array().context("no rules")?;
    ensure!(alerts.len() >= 10);
    let mut told = BTreeSet::new();
    for alert in alerts {
        let name = alert["alert"].as_str().context("an alert has a name")?;
        let text = |pointer: &str| {
            alert
                .pointer(pointer)
                .and_then(Value::as_str)
                .with_context(|| format!("{name}: no {pointer}"))
        };
        check_query(text("/expr")?, text("/annotations/summary")?, &table).with_context(|| name.to_owned())?;
        text("/annotations/description")?;
        ensure!(
            ["critical", "warning", "info"].contains(&text("/labels/severity")?),
            "{name}"
        );
        let (page, anchor) = text("/annotations/runbook_url")?
            .strip_prefix("https://github.com/taskgate/taskgate/blob/main/")
            .and_then(|path| path.split_once('#'))
            .context("a page and a place")?;
        ensure!(anchors(&read(page)?).contains(anchor), "{name}: {page} has no {anchor}");
        told.insert(anchor.to_owned());
    }
    // And no page is left of an alert that went.
    let pages = anchors(&read("docs/runbook.md")?);
    let stale: Vec<_> = pages
        .iter()
        .filter(|page| page.starts_with("taskgate") && !told.contains(*page))
        .collect();
    ensure!(stale.is_empty(), "pages of no alert: {stale:?}");
    Ok(())
}

/// The rules are those of the chart, whose file promtool reads as it is.
#[tokio::test]
async fn promtool_accepts_the_alerts_and_each_fires_for_its_cause() -> anyhow::Result<()> {
    let rules = read("manifests/chart/files/alerts.yaml")?;
    let cases = read("e2e/tests/install/alerts.yaml")?;
    for name in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        ensure!(cases.contains(&format!("alertname=\"{name}\"")), "no case for {name}");
    }
    for args in [
        ["check", "rules", "manifests/chart/files/alerts.yaml"],
        ["test", "rules", "e2e/tests/install/alerts.yaml"],
    ] {
        let output = Command::new(tool("promtool").await?)
            .args(args)
            .current_dir(project("."))
            .output()
            .await?;
        let [told, wrong] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        ensure!(output.status.success(), "promtool {args:?}: {told}{wrong}");
    }
    Ok(())
}

/// The page for refused reviews tells about each cause that there is, and about none else.
#[test]
fn the_runbook_names_every_cause_of_a_refusal() -> anyhow::Result<()> {
    let source = read("webhook/src/admission/refusal.rs")?;
    let causes = source.split("fn status_and_cause(").nth(1).context("no causes")?;
    let causes = causes.lines().take_while(|line| !line.starts_with('}'));
    let causes: BTreeSet<_> = causes
        .filter_map(|line| line.split_once(", \"")?.1.split('"').next())
        .collect();
    ensure!(causes.len() >= 10, "{causes:?}");
    let page = read("docs/runbook.md")?;
    let section = page
        .split("\n## ")
        .find(|part| part.starts_with("TaskgateReviewsRefused"));
    let rows = section
        .context("no section")?
        .lines()
        .filter(|line| line.starts_with("| `"));
    let told: BTreeSet<_> = rows
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(|names| names.split(','))
        .map(|name| name.trim().trim_matches('`'))
        .collect();
    ensure!(told == causes, "told {told:?}, but there are {causes:?}");
    Ok(())
}

#[test]
fn the_dashboard_shows_what_is_measured() -> anyhow::Result<()> {
    let table = table()?;
    let dashboard: Value = serde_json::from_str(&read("manifests/components/monitoring/dashboard.json")?)?;
    let variables = dashboard["templating"]["list"].as_array().context("no variables")?;
    ensure!(
        variables
            .iter()
            .any(|one| one["name"] == "datasource" && one["type"] == "datasource")
    );
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    let mut shown = String::new();
    for panel in panels {
        let title = panel["title"].as_str().context("a panel has a title")?;
        ensure!(
            ids.insert(panel["id"].as_u64().context("an id")?),
            "{title}: its id is taken"
        );
        ensure!(
            places.insert(panel["gridPos"].to_string()),
            "{title}: its place is taken"
        );
        ensure!(
            ["timeseries", "stat"].contains(&panel["type"].as_str().unwrap_or_default())
                && panel["fieldConfig"]["defaults"]["unit"].is_string(),
            "{title}"
        );
        let description = panel["description"].as_str().unwrap_or_default();
        ensure!(description.ends_with('.'), "{title}: it has no description");
        let targets = panel["targets"]
            .as_array()
            .with_context(|| format!("{title}: no queries"))?;
        ensure!(!targets.is_empty(), "{title}");
        for target in targets {
            ensure!(target["datasource"]["uid"] == "${datasource}", "{title}");
            let [query, legend] = ["expr", "legendFormat"].map(|key| target[key].as_str().unwrap_or_default());
            check_query(query, legend, &table).with_context(|| title.to_owned())?;
            shown += query;
        }
    }
    let unseen: Vec<_> = table.keys().filter(|name| !shown.contains(name.as_str())).collect();
    ensure!(unseen == ["kelos_task_completed_total"], "in no panel: {unseen:?}");
    Ok(())
}
