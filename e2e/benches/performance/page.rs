//! The sections of docs/performance.md, each with the commit, the machine and its load. The others stay as they are.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};

/// Prints the section `title`, and replaces it on the page. `before` is the load average before it was measured.
pub(crate) fn put(title: &str, text: &str, before: &str) -> anyhow::Result<()> {
    let (machine, commit, after) = (machine()?, commit()?, load_average()?);
    let today = jiff::Zoned::now().date();
    let heading = format!("## {title}\n");
    let section = format!(
        "{heading}\n{}\n\nMeasured on {today} at commit {commit}, on {machine}; load average {before} before and {after} after.\n",
        text.trim()
    );
    println!("{section}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
    let page = fs::read_to_string(&path)?;
    let page = match page.split_once(&heading) {
        Some((earlier, old)) => {
            let later = old.find("\n## ").and_then(|at| old.get(at..)).unwrap_or_default();
            format!("{earlier}{section}{later}")
        }
        None => format!("{page}\n{section}"),
    };
    Ok(fs::write(&path, page)?)
}

/// The load averages of 1, 5 and 15 minutes.
pub(crate) fn load_average() -> anyhow::Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

/// Cores and memory.
fn machine() -> anyhow::Result<String> {
    let cores = std::thread::available_parallelism()?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kibibytes: u64 = memory.split_whitespace().nth(1).context("no MemTotal")?.parse()?;
    Ok(format!("{cores} cores with {} GiB", kibibytes.div_ceil(1 << 20)))
}

/// The commit that was measured, and whether there are changes to anything but the page.
fn commit() -> anyhow::Result<String> {
    let git = |args: &[&str]| -> anyhow::Result<String> {
        let output = Command::new("git").args(args).output()?;
        ensure!(
            output.status.success(),
            "git: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let changes = git(&["status", "--porcelain", "--", ":/", ":!/docs/performance.md"])?;
    let suffix = if changes.is_empty() { "" } else { " with changes" };
    Ok(format!("`{}`{suffix}", git(&["rev-parse", "--short", "HEAD"])?))
}
