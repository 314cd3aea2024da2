//! How fast taskgate is, and how much memory it needs: the real binary on a real control plane, beside programs that do the same or
//! less. Figures, no test. `make bench` writes them to docs/performance.md.
//!
//! ```text
//! cargo bench -p taskgate-e2e --bench performance -- [section…] [--work-items=100000] [--rounds=3] [--requests=1000]
//! ```
//!
//! Without a section all are measured; a section that is not measured stays as it is on the page.

// A program for a person at a terminal: printing is what it is for.
#![allow(clippy::print_stdout)]

mod admission;
mod cancellation;
mod checks;
mod decisions;
mod failures;
mod page;
mod scale;
mod startup;
mod statistics;
mod twin;

use anyhow::{Context as _, bail};

/// The sections of the page, in its order.
const SECTIONS: [(&str, &str); 7] = [
    ("admission", "Admission"),
    ("decisions", "One decision"),
    ("failures", "Recording failures"),
    ("scale", "Many WorkItems"),
    ("cancellation", "Cancellation"),
    ("startup", "Start and idle memory"),
    ("checks", "Checking files"),
];

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// `WorkItem`s in the cluster.
    work_items: usize,
    /// How often everything that is compared is done.
    rounds: usize,
    /// Requests per round and arm.
    requests: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut size = Size {
        work_items: 10_000,
        rounds: 3,
        requests: 1_000,
    };
    let mut wanted = Vec::new();
    // Cargo adds `--bench`.
    for arg in std::env::args().skip(1).filter(|arg| arg != "--bench") {
        let Some((flag, value)) = arg.split_once('=') else {
            wanted.push(arg);
            continue;
        };
        let value = value.parse().with_context(|| arg.clone())?;
        match flag {
            "--work-items" => size.work_items = value,
            "--rounds" => size.rounds = value,
            "--requests" => size.requests = value,
            _ => bail!("unknown flag {flag}"),
        }
    }
    let known = |name: &String| SECTIONS.iter().any(|(section, _)| section == name);
    if let Some(unknown) = wanted.iter().find(|name| !known(name)) {
        bail!("unknown section {unknown}");
    }
    for (section, title) in SECTIONS {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == section) {
            continue;
        }
        println!("measuring: {title}");
        let before = page::load_average()?;
        let text = match section {
            "admission" => admission::measure(size).await,
            "decisions" => decisions::measure(),
            "failures" => failures::measure().await,
            "scale" => scale::measure(size).await,
            "cancellation" => cancellation::measure().await,
            "startup" => startup::measure().await,
            _ => checks::measure(),
        };
        page::put(title, &text.with_context(|| title)?, &before)?;
    }
    Ok(())
}
