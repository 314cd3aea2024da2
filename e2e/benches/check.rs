//! How long `taskgate check` takes for 1,000 objects, and how much memory, and how long `taskgate test` takes for 500 cases: the
//! real binary, started anew each time. Figures, no test: `make bench` prints them.

// A program for a person at a terminal: printing is what it is for.
#![allow(clippy::print_stdout)]

use std::{
    fs,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::json;
use taskgate_e2e::binary;

/// How many objects are checked.
const OBJECTS: usize = 1_000;
/// How many cases are run: at least so many, in copies of the folder of examples.
const CASES: usize = 500;
/// How often.
const RUNS: usize = 20;

fn main() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("taskgate-bench-check-{}", std::process::id()));
    let outcome = bench(&folder);
    fs::remove_dir_all(&folder)?;
    outcome
}

fn bench(folder: &Path) -> anyhow::Result<()> {
    let one = folder.join("one");
    let many = folder.join("many");
    let policies = folder.join("policies");
    for folder in [&one, &many, &policies] {
        fs::create_dir_all(folder)?;
    }
    fs::write(policies.join("policy.yaml"), policy())?;
    let tasks: Vec<_> = (1..=OBJECTS).map(task).collect();
    fs::write(one.join("tasks.yaml"), tasks.join("---\n"))?;
    for (number, task) in tasks.iter().enumerate() {
        fs::write(many.join(format!("{number}.yaml")), task)?;
    }
    for (what, path) in [("one file", &one), ("a file each", &many)] {
        let mut times = Vec::new();
        let mut peak = 0;
        for _ in 0..RUNS {
            let (time, memory) = check(path, &policies)?;
            times.push(time);
            peak = peak.max(memory);
        }
        let peak = f64::from(peak) / 1024.0;
        println!("{OBJECTS} Tasks, {what}: {}, peak {peak:.1} MiB", told(times));
    }
    let cases = folder.join("cases");
    let number = copy_cases(&cases)?;
    let times = (0..RUNS).map(|_| test(&cases, number)).collect::<anyhow::Result<_>>()?;
    println!("{number} cases: {}", told(times));
    Ok(())
}

fn told(mut times: Vec<Duration>) -> String {
    times.sort();
    format!(
        "median {:?}, slowest {:?}",
        times[times.len() / 2],
        times[times.len() - 1]
    )
}

/// Copies the cases of the examples, with what they rest on, until there are [`CASES`] of them. Returns how many there are.
fn copy_cases(folder: &Path) -> anyhow::Result<usize> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tests");
    let mut number = 0;
    for copy in 0.. {
        if number >= CASES {
            break;
        }
        let copy = folder.join(copy.to_string());
        fs::create_dir_all(&copy)?;
        for entry in fs::read_dir(&examples)? {
            let entry = entry?;
            let text = fs::read_to_string(entry.path())?;
            number += usize::from(text.starts_with("case:"));
            fs::write(copy.join(entry.file_name()), text)?;
        }
        ensure!(number > 0, "{} has no cases", examples.display());
    }
    Ok(number)
}

/// How long `taskgate check` takes, and the most memory it held, in KiB.
///
/// Everything is judged and rendered before the first byte is written, and all of it does not fit into the pipe: while the
/// rest waits there, the peak can be read.
fn check(objects: &Path, policies: &Path) -> anyhow::Result<(Duration, u32)> {
    let began = Instant::now();
    let mut process = Command::new(binary("taskgate")?)
        .arg("check")
        .arg(objects)
        .arg("--with")
        .arg(policies)
        .args(["--now", "2026-11-20T12:00:00Z", "--ci", "none"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdout = process.stdout.take().context("its output")?;
    let mut text = vec![0];
    stdout.read_exact(&mut text)?;
    let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    let peak = peak.context("the peak of its memory")?.trim().parse()?;
    stdout.read_to_end(&mut text)?;
    ensure!(process.wait()?.success(), "it failed");
    let time = began.elapsed();
    let text = String::from_utf8(text)?;
    ensure!(
        text.ends_with(&format!("{OBJECTS} allowed ({OBJECTS} changed)\n")),
        "{text:.400}"
    );
    Ok((time, peak))
}

/// How long `taskgate test` takes for `number` cases.
fn test(cases: &Path, number: usize) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let output = Command::new(binary("taskgate")?).arg("test").arg(cases).output()?;
    let time = began.elapsed();
    let text = String::from_utf8(output.stdout)?;
    ensure!(text == format!("{number} passed, 0 failed\n"), "{text:.400}");
    Ok(time)
}

fn policy() -> String {
    json!({"apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "agents", "namespace": "team-a"},
        "spec": {
            "failurePolicy": {"maxRetriesPerItem": 3}, "queueName": "agents",
            "metadata": {"labels": {"team": "blue", "agent": "{{ task.spec.type }}"},
                "annotations": {"example.com/source": "{{ spawner.metadata.name }}/{{ item.number }}"}},
        }})
    .to_string()
}

/// A Task as a spawner makes it, with a prompt of 1 KiB.
fn task(number: usize) -> String {
    let prompt = "Look at the issue, find the cause, and fix it.\n    ".repeat(20);
    format!(
        "apiVersion: kelos.dev/v1alpha2
kind: Task
metadata:
  name: fixer-{number}
  namespace: team-a
  labels: {{kelos.dev/taskspawner: fixer, kelos.dev/task: fixer-{number}}}
  annotations: {{kelos.dev/source-kind: issue, kelos.dev/source-number: \"{number}\"}}
spec:
  type: claude-code
  prompt: |
    {prompt}
  credentials: {{type: api-key, secretRef: {{name: anthropic}}}}
  workspaceRef: {{name: app}}
  ttlSecondsAfterFinished: 3600
"
    )
}
