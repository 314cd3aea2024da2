//! What the Criterion benchmarks of other crates measured, which `make bench` runs before this program.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Context as _;
use serde_json::Value;

/// The table of all of them.
pub(crate) fn measure() -> anyhow::Result<String> {
    let own = std::env::current_exe()?;
    let folder = own.ancestors().nth(3).context("no target folder")?.join("criterion");
    let mut rows = Vec::new();
    collect(&folder, &folder, &mut rows).with_context(|| format!("{}: use `make bench`", folder.display()))?;
    rows.sort();
    let mut text = "In one process, by Criterion; a review includes TLS, HTTP and its client.\n\n".to_owned();
    text.push_str("| What | Median | 95 % interval |\n|---|---|---|\n");
    rows.iter().try_for_each(|row| writeln!(text, "{row}"))?;
    Ok(text)
}

/// Adds a row for each estimate below `folder`.
fn collect(root: &Path, folder: &Path, rows: &mut Vec<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("base") && !path.ends_with("report") {
            collect(root, &path, rows)?;
        } else if path.ends_with("new/estimates.json") {
            let estimates: Value = serde_json::from_slice(&fs::read(&path)?)?;
            let median = &estimates["median"];
            let micros = |value: &Value| format!("{:.1} µs", value.as_f64().unwrap_or_default() / 1000.0);
            let name = path
                .parent()
                .and_then(Path::parent)
                .and_then(|path| path.strip_prefix(root).ok());
            let name = name
                .unwrap_or(&path)
                .display()
                .to_string()
                .replace('/', ", ")
                .replace('_', " ");
            let interval = &median["confidence_interval"];
            let (low, high) = (micros(&interval["lower_bound"]), micros(&interval["upper_bound"]));
            rows.push(format!(
                "| {name} | {} | {low} to {high} |",
                micros(&median["point_estimate"])
            ));
        }
    }
    Ok(())
}
