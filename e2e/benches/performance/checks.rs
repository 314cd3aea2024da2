//! How long `taskgate check` takes for 1,000 objects, and how much memory, and how long `taskgate test` takes for the
//! examples: the process is started anew each time.

use std::{
    fmt::Write as _,
    fs,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::json;
use taskgate_e2e::{binary, merged, policy, task};

use crate::statistics::Sample;

/// How many objects are checked.
const OBJECTS: usize = 1_000;
/// How often.
const RUNS: usize = 20;

/// Measures all of them.
pub(crate) fn measure() -> anyhow::Result<String> {
    let folder = std::env::temp_dir().join(format!("taskgate-bench-{}", std::process::id()));
    let text = measure_in(&folder);
    fs::remove_dir_all(&folder)?;
    text
}

fn measure_in(folder: &Path) -> anyhow::Result<String> {
    let (tasks, policies) = (folder.join("tasks"), folder.join("policies"));
    fs::create_dir_all(&tasks)?;
    fs::create_dir_all(&policies)?;
    let spec = json!({
        "failurePolicy": {"maxRetriesPerItem": 3}, "queueName": "agents",
        "metadata": {"labels": {"team": "blue", "agent": "{{ task.spec.type }}"},
            "annotations": {"example.com/source": "{{ spawner.metadata.name }}/{{ item.number }}"}},
    });
    let governs = merged(policy("agents", &spec), &json!({"metadata": {"namespace": "team-a"}}));
    fs::write(policies.join("policy.yaml"), governs.to_string())?;
    let objects: Vec<_> = (1..=OBJECTS).map(spawned_task).collect();
    fs::write(tasks.join("tasks.yaml"), objects.join("\n---\n"))?;
    let mut text =
        format!("With the start of the process.\n\n| What | Median / slowest of {RUNS} | Memory |\n|---|---|---|\n");
    let mut row = |what, times: Vec<Duration>, memory: String| {
        let times = Sample::of_times(times);
        let (median, slowest) = (times.median() / 1000.0, times.percentile(100) / 1000.0);
        writeln!(text, "| {what} | {median:.2} s / {slowest:.2} s | {memory} |")
    };
    let runs = (0..RUNS)
        .map(|_| check(&tasks, &policies))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let (times, peaks): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
    let peak = peaks.into_iter().max().unwrap_or_default().div_ceil(1024);
    row(
        "`taskgate check`, 1,000 Tasks in one file",
        times,
        format!("{peak} MiB"),
    )?;
    let times = (0..RUNS).map(|_| test()).collect::<anyhow::Result<_>>()?;
    row("`taskgate test`, the examples", times, String::new())?;
    Ok(text)
}

/// How long `taskgate check` takes, and the most memory it had, in KiB.
///
/// Everything is decided and rendered before the first byte is written, and all of it does not fit into the pipe: while the
/// rest waits there, the peak can be read.
fn check(objects: &Path, policies: &Path) -> anyhow::Result<(Duration, u64)> {
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
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak
        .and_then(|peak| peak.trim().strip_suffix(" kB"))
        .context("the peak of its memory")?
        .parse()?;
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

/// How long `taskgate test` takes for the examples.
fn test() -> anyhow::Result<Duration> {
    let began = Instant::now();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tests");
    let output = Command::new(binary("taskgate")?).arg("test").arg(examples).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(began.elapsed())
}

/// A Task as a spawner makes it, with a prompt of 1 KiB, as YAML.
fn spawned_task(number: usize) -> String {
    let name = format!("fixer-{number}");
    let more = json!({
        "metadata": {
            "namespace": "team-a", "labels": {"kelos.dev/taskspawner": "fixer", "kelos.dev/task": name},
            "annotations": {"kelos.dev/source-kind": "issue", "kelos.dev/source-number": number.to_string()},
        },
        "spec": {
            "prompt": "Look at the issue, find the cause, and fix it.\n".repeat(20), "workspaceRef": {"name": "app"},
            "credentials": {"type": "api-key", "secretRef": {"name": "anthropic"}}, "ttlSecondsAfterFinished": 3600,
        },
    });
    merged(task(&name), &more).to_string()
}
