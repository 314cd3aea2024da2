//! `taskgate test`: cases as files, run without a cluster.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use taskgate_offline::case::{CaseRunner, is_case};

use super::{Failure, Outcome};
use crate::{
    args::{NAME, NAMESPACE},
    output::{self, Format, Progress, Style},
};

const EXAMPLES: &str = "\
Examples:
  taskgate test examples/tests                 # every case below the folder
  taskgate test case.yaml --update             # write what comes of it into the case, to be read and committed

A case:
  case: Every Task gets its team
  now: 2026-11-20T12:00:00Z
  given: [policy.yaml]
  objects: [task.yaml]
  expect:
  - object: Task team-a/fixer-42
    verdict: allowed
    patch: ['+ metadata.labels.team: \"blue\"']

Exit codes: 0 all pass, 1 some fail, 2 usage.";

/// Flags of `taskgate test`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TestArgs {
    /// Cases, or folders with cases (files that have both `objects:` and `now:`).
    #[arg(value_name = "PATHS", required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Write what comes of the cases into them, instead of comparing. Read the difference before you commit it.
    #[arg(long)]
    pub(crate) update: bool,
    /// The form of the result.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// What came of all cases.
#[derive(Debug, Default, Serialize)]
struct Results {
    passed: usize,
    failed: Vec<Failed>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    updated: Vec<PathBuf>,
}

/// A case that did not come out as it has to.
#[derive(Debug, Serialize)]
struct Failed {
    case: PathBuf,
    /// What differs, a line each; or why it cannot be run.
    differences: Vec<String>,
}

pub(crate) async fn run(args: TestArgs) -> Result<Outcome, Failure> {
    let mut cases = Vec::new();
    for path in &args.paths {
        find(path, true, &mut cases).with_context(|| path.display().to_string())?;
    }
    if cases.is_empty() {
        return Err(Failure::Usage(
            "there is no case: a file with `objects:` and `now:`".to_owned(),
        ));
    }
    let runner = CaseRunner::new(NAME, NAMESPACE);
    let progress = Progress::new("running cases");
    let mut results = Results::default();
    for (index, path) in cases.iter().enumerate() {
        progress.at(index, cases.len());
        judge(&runner, path, args.update, &mut results).await;
    }
    drop(progress);
    let text = match args.output {
        Format::Text => text(&results, Style::of_stdout()),
        Format::Json => output::to_json(&results)?,
        Format::Yaml => output::to_yaml(&results)?,
    };
    output::print(&text)?;
    Ok(if results.failed.is_empty() {
        Outcome::Fine
    } else {
        Outcome::Denied
    })
}

async fn judge(runner: &CaseRunner, path: &Path, update: bool, results: &mut Results) {
    let differences = if update {
        match runner.update(path).await {
            Ok(true) => {
                results.updated.push(path.to_owned());
                None
            }
            Ok(false) => None,
            Err(error) => Some(vec![error.to_string()]),
        }
    } else {
        match runner.run(path).await {
            Ok(outcome) if outcome.passed() => None,
            Ok(outcome) => Some(outcome.differences().iter().map(ToString::to_string).collect()),
            Err(error) => Some(vec![error.to_string()]),
        }
    };
    match differences {
        None => results.passed += 1,
        Some(differences) => results.failed.push(Failed {
            case: path.to_owned(),
            differences,
        }),
    }
}

/// The cases at `path`, in the order of their names. One that is `named` is a case, whatever is in it.
fn find(path: &Path, named: bool, cases: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if fs::metadata(path)?.is_dir() {
        let mut entries = fs::read_dir(path)?.collect::<std::io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            // A link may lead back to where it is.
            if !hidden && !entry.file_type()?.is_symlink() {
                find(&entry.path(), false, cases)?;
            }
        }
        return Ok(());
    }
    let yaml = path
        .extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml");
    if named || yaml && is_case(path) {
        cases.push(path.to_owned());
    }
    Ok(())
}

fn text(results: &Results, style: Style) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    for path in &results.updated {
        let _ = writeln!(text, "{}: {}", path.display(), style.warning("updated"));
    }
    for Failed { case, differences } in &results.failed {
        let _ = writeln!(text, "{}: {}", case.display(), style.bad("failed"));
        for difference in differences {
            let _ = writeln!(text, "  {difference}");
        }
    }
    let _ = writeln!(text, "{} passed, {} failed", results.passed, results.failed.len());
    text
}
