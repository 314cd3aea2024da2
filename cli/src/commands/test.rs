//! `taskgate test`: runs test cases from files, without a cluster.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;
use taskgate_offline::case::{CaseRunner, is_case};

use crate::{
    defaults::{NAME, NAMESPACE},
    exit::{ExitStatus, UsageError},
    output::{self, OutputFormat, ProgressLine, Style},
};

const EXAMPLES: &str = "\
Examples:
  taskgate test examples/tests                 # every case below the folder
  taskgate test case.yaml --update             # write the results into the case, to be reviewed and committed

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
    #[arg(value_name = "PATHS", required_unless_present = "filename")]
    pub(crate) paths: Vec<PathBuf>,
    /// The same as PATHS, as with kubectl.
    #[arg(short, long, value_name = "PATH")]
    pub(crate) filename: Vec<PathBuf>,
    /// Write the results into the cases instead of comparing them. Review the difference before you commit it.
    #[arg(long)]
    pub(crate) update: bool,
    /// The form of the result.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: OutputFormat,
}

/// The results of all cases.
#[derive(Debug, Default, Serialize)]
struct Results {
    passed: usize,
    failed: Vec<FailedCase>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    updated: Vec<PathBuf>,
}

/// A case whose results differ from the expected ones.
#[derive(Debug, Serialize)]
struct FailedCase {
    case: PathBuf,
    /// A line for each difference, or why the case cannot be run.
    differences: Vec<String>,
}

pub(crate) async fn run(args: TestArgs) -> Result<ExitStatus> {
    let mut cases = Vec::new();
    let mut results = Results::default();
    for path in args.paths.iter().chain(&args.filename) {
        find(path, true, &mut cases, &mut results);
    }
    let no_case = || UsageError("there is no case: a file with `objects:` and `now:`".to_owned());
    ensure!(!cases.is_empty() || !results.failed.is_empty(), no_case());
    let runner = CaseRunner::new(NAME, NAMESPACE);
    let progress = ProgressLine::new("running cases");
    for (index, path) in cases.iter().enumerate() {
        progress.at(index, cases.len());
        run_case(&runner, path, args.update, &mut results).await;
    }
    drop(progress);
    let text = || text(&results, Style::of_stdout());
    output::print(&args.output.render(&results, text)?)?;
    Ok(if results.failed.is_empty() {
        ExitStatus::Success
    } else {
        ExitStatus::Failure
    })
}

async fn run_case(runner: &CaseRunner, path: &Path, update: bool, results: &mut Results) {
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
            Ok(result) if result.passed() => None,
            Ok(result) => Some(result.differences().iter().map(ToString::to_string).collect()),
            Err(error) => Some(vec![error.to_string()]),
        }
    };
    match differences {
        None => results.passed += 1,
        Some(differences) => results.failed.push(FailedCase {
            case: path.to_owned(),
            differences,
        }),
    }
}

/// Collects the cases at `path`, in the order of their names. A `named` file is a case whatever its content is. What cannot be read is
/// a failure, and hides no other case.
fn find(path: &Path, named: bool, cases: &mut Vec<PathBuf>, results: &mut Results) {
    match entries(path) {
        Ok(None) => {
            let yaml = path
                .extension()
                .is_some_and(|extension| extension == "yaml" || extension == "yml");
            if named || yaml && is_case(path) {
                cases.push(path.to_owned());
            }
        }
        Ok(Some(entries)) => entries.iter().for_each(|entry| find(entry, false, cases, results)),
        Err(error) => results.failed.push(FailedCase {
            case: path.to_owned(),
            differences: vec![error.to_string()],
        }),
    }
}

/// The entries of the folder `path`, in the order of their names; `None` for a file.
fn entries(path: &Path) -> std::io::Result<Option<Vec<PathBuf>>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(None);
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // A symbolic link may lead back to its own folder.
        if !hidden && !entry.file_type()?.is_symlink() {
            entries.push(entry.path());
        }
    }
    entries.sort();
    Ok(Some(entries))
}

fn text(results: &Results, style: Style) -> String {
    let mut text = String::new();
    for path in &results.updated {
        let _ = writeln!(text, "{}: {}", path.display(), style.warning("updated"));
    }
    for FailedCase { case, differences } in &results.failed {
        let _ = writeln!(text, "{}: {}", case.display(), style.bad("failed"));
        for difference in differences {
            let _ = writeln!(text, "  {difference}");
        }
    }
    let _ = writeln!(text, "{} passed, {} failed", results.passed, results.failed.len());
    text
}
