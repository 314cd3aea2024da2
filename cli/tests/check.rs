//! `taskgate check` on files, as users and CI run it: what is printed, and the exit code.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

const POLICY: &str = "\
apiVersion: taskgate.dev/v1alpha1
kind: TaskPolicy
metadata: {name: agents, namespace: team-a}
spec: {metadata: {labels: {team: blue}}}
";
const TASK: &str = "\
apiVersion: kelos.dev/v1alpha2
kind: Task
metadata: {name: fixer-42, namespace: team-a}
spec: {type: claude-code, prompt: Fix it.}
";

struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn taskgate(folder: &Path, args: &[&str], stdin: &str) -> anyhow::Result<Run> {
    let mut process = Command::new(env!("CARGO_BIN_EXE_taskgate"))
        .args(args)
        .current_dir(folder)
        .env_remove("GITHUB_ACTIONS")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = process.stdin.take().context("stdin")?;
    // The process may end without reading it.
    let _ = input.write_all(stdin.as_bytes());
    drop(input);
    let output = process.wait_with_output()?;
    Ok(Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

fn folder(files: &[(&str, &str)]) -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(path, text)?;
    }
    Ok(folder)
}

#[test]
fn a_folder_shows_the_changes_and_their_policies() -> anyhow::Result<()> {
    let folder = folder(&[
        ("a/policy.yaml", POLICY),
        ("b/c/task.yml", TASK),
        ("values.yaml", "replicas: 3\n"),
    ])?;
    let run = taskgate(folder.path(), &["check", "."], "")?;
    ensure!(run.code == Some(0), "{} {}", run.stdout, run.stderr);
    ensure!(
        run.stdout
            == "./a/policy.yaml:1  TaskPolicy team-a/agents  allowed, unchanged\n\
                ./b/c/task.yml:1  Task team-a/fixer-42  allowed, changed\n  + metadata.labels.team: \"blue\"\n  \
                by TaskPolicy team-a/agents, metadata (Enforce): set team\n\
                2 objects: 2 allowed (1 changed)\n",
        "{}",
        run.stdout
    );
    Ok(())
}

#[test]
fn errors_have_their_location_and_hide_no_other_document() -> anyhow::Result<()> {
    let bad = format!("{TASK}---\nkind: Task\napiVersion: v1\nspec: {{a: b: c}}\n---\n{TASK}");
    let policy = POLICY.replace("spec: {", "spec: {mod: Warn, mode: Perhaps, ");
    let folder = folder(&[("bad.yaml", &bad), ("policy.yaml", &policy)])?;
    let run = taskgate(folder.path(), &["check", "bad.yaml", "policy.yaml", "absent.yaml"], "")?;
    ensure!(run.code == Some(1), "{} {}", run.stdout, run.stderr);
    for line in [
        "bad.yaml:8:12  unreadable",
        "absent.yaml  unreadable",
        "bad.yaml:1  Task team-a/fixer-42  allowed, unchanged",
        "bad.yaml:10  Task team-a/fixer-42  allowed, unchanged",
        "policy.yaml:1  TaskPolicy team-a/agents  invalid",
        "  unknown field \"spec.mod\"",
        "  spec.mode: Unsupported value: \"Perhaps\": supported values: \"Off\", \"Observe\", \"Warn\", \"Enforce\"",
        "3 objects: 2 allowed, 1 invalid, 2 unreadable",
    ] {
        ensure!(
            run.stdout.lines().any(|printed| printed == line),
            "{line:?} is not in\n{}",
            run.stdout
        );
    }
    Ok(())
}

/// The cluster accepts the examples.
#[test]
fn every_example_of_a_policy_can_be_applied() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let policies = ["foreman", "kueue", "quickstart"].map(|folder| format!("examples/{folder}/policy.yaml"));
    let run = taskgate(&root, &["check", &policies[0], &policies[1], &policies[2]], "")?;
    ensure!(run.code == Some(0), "{} {}", run.stdout, run.stderr);
    for policy in policies {
        let allowed = |line: &str| line.starts_with(&policy) && line.ends_with("allowed, unchanged");
        ensure!(run.stdout.lines().any(allowed), "{policy} is not in\n{}", run.stdout);
    }
    Ok(())
}

#[test]
fn standard_input_lists_and_reviews_are_read() -> anyhow::Result<()> {
    let folder = folder(&[("policy.yaml", POLICY)])?;
    let review = serde_json::json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "1", "kind": {"group": "kelos.dev", "version": "v1alpha2", "kind": "Task"}, "operation": "CREATE",
        "name": "reviewed", "namespace": "team-a", "userInfo": {"username": "ann"},
        "object": {"apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": {"name": "reviewed"}}}});
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {}\n- {review}\n- {{apiVersion: v1, kind: Secret}}\n",
        TASK.trim_end().replace('\n', "\n  ")
    );
    let run = taskgate(
        folder.path(),
        &["check", "-", "--with", "policy.yaml", "-o", "json"],
        &list,
    )?;
    ensure!(run.code == Some(0), "{} {}", run.stdout, run.stderr);
    let report: Value = serde_json::from_str(&run.stdout)?;
    let objects = report["objects"].as_array().context("objects")?;
    let of = |index: usize, field: &str| objects[index][field].as_str().unwrap_or_default().to_owned();
    ensure!(
        (of(0, "name"), of(0, "file")) == ("fixer-42".to_owned(), "-".to_owned()),
        "{report}"
    );
    ensure!(
        (of(1, "name"), of(1, "user")) == ("reviewed".to_owned(), "ann".to_owned()),
        "{report}"
    );
    ensure!(
        objects
            .iter()
            .all(|object| object["object"]["metadata"]["labels"]["team"] == "blue"),
        "{report}"
    );
    ensure!(report["summary"]["otherKinds"] == 1, "{report}");
    Ok(())
}

#[test]
fn exit_codes_distinguish_success_denial_usage_and_warnings() -> anyhow::Result<()> {
    let item = "\
apiVersion: taskgate.dev/v1alpha1
kind: WorkItem
metadata: {name: item-7-31dd7f3a30, namespace: team-a}
spec: {key: item 7, item: item 7}
";
    let folder = folder(&[
        ("task.yaml", TASK),
        (
            "empty.yaml",
            &POLICY.replace("{metadata: {labels: {team: blue}}}", "{}"),
        ),
        ("bad.yaml", &POLICY.replace("team: blue", "kelos.dev/task: mine")),
        ("item.yaml", item),
    ])?;
    for (args, code) in [
        (&["check", "task.yaml"][..], 0),
        (&["check", "bad.yaml"], 1),
        (&["check", "item.yaml"], 1),
        (&["check"], 2),
        (&["check", "task.yaml", "--now", "soon"], 2),
        (&["check", "task.yaml", "--as-group", "g"], 2),
        (&["check", "empty.yaml"], 3),
        (&["check", "task.yaml", "--with", "bad.yaml"], 3),
    ] {
        let run = taskgate(folder.path(), args, "")?;
        ensure!(
            run.code == Some(code),
            "{args:?}: {:?} {} {}",
            run.code,
            run.stdout,
            run.stderr
        );
    }
    Ok(())
}

#[test]
fn ci_systems_get_their_formats() -> anyhow::Result<()> {
    let folder = folder(&[("policy.yaml", &POLICY.replace("team: blue", "kelos.dev/task: mine"))])?;
    let run = taskgate(folder.path(), &["check", "policy.yaml", "-o", "junit"], "")?;
    ensure!(run.stdout.contains("tests=\"1\" failures=\"1\""), "{}", run.stdout);
    let run = taskgate(
        folder.path(),
        &["check", "policy.yaml", "-o", "sarif", "--ci", "github"],
        "",
    )?;
    let sarif: Value = serde_json::from_str(&run.stdout)?;
    ensure!(sarif["runs"][0]["results"][0]["ruleId"] == "denied", "{sarif}");
    ensure!(
        run.stderr
            .starts_with("::error file=policy.yaml,line=1,title=TaskPolicy team-a/agents denied::taskgate: "),
        "{}",
        run.stderr
    );
    let run = taskgate(folder.path(), &["check", "policy.yaml", "-o", "yaml"], "")?;
    ensure!(run.stdout.contains("verdict: denied"), "{}", run.stdout);
    Ok(())
}

/// Runs check on `text`, which kubectl 1.36 and the API server answer in the same way.
fn has_result(text: &str, code: i32, wanted: &str) -> anyhow::Result<()> {
    let folder = folder(&[("task.yaml", text)])?;
    let run = taskgate(folder.path(), &["check", "task.yaml"], "")?;
    ensure!(
        run.code == Some(code) && run.stdout.contains(wanted),
        "{text}\n{wanted}\n{:?} {} {}",
        run.code,
        run.stdout,
        run.stderr
    );
    Ok(())
}

#[test]
fn odd_metadata_has_the_result_of_the_api_server() -> anyhow::Result<()> {
    let task = |metadata: &str| TASK.replace("{name: fixer-42, namespace: team-a}", metadata);
    let labelled = |labels: &str| task(&format!("{{name: a, namespace: team-a, labels: {labels}}}"));
    let numbers = "json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string";
    for (text, code, wanted) in [
        (
            task("fixer-42"),
            1,
            "  metadata: json: cannot unmarshal string into Go value of type v1.ObjectMeta",
        ),
        (
            task("[]"),
            1,
            "  metadata: json: cannot unmarshal array into Go value of type v1.ObjectMeta",
        ),
        (
            task("7"),
            1,
            "  metadata: json: cannot unmarshal number into Go value of type v1.ObjectMeta",
        ),
        (
            task("{namespace: team-a}"),
            1,
            "  metadata.name: Required value: name or generateName is required",
        ),
        (
            task("{name: Fixer_42}"),
            1,
            "  metadata.name: Invalid value: \"Fixer_42\": a lowercase RFC 1123 subdomain",
        ),
        (task("{name: 42}"), 1, "  metadata.name: json: cannot unmarshal number"),
        (
            task("{name: a, namespace: 7}"),
            1,
            "  metadata.namespace: json: cannot unmarshal number",
        ),
        (
            labelled("{issue: 42}"),
            1,
            &*format!("  metadata.labels.issue: {numbers}"),
        ),
        (
            labelled("{sha: 0812}"),
            1,
            &*format!("  metadata.labels.sha: {numbers}"),
        ),
        (
            labelled("{urgent: yes}"),
            1,
            "  metadata.labels.urgent: json: cannot unmarshal bool",
        ),
        (
            labelled("{team: Platform Team}"),
            1,
            "  metadata.labels: Invalid value: \"Platform Team\": a valid label",
        ),
        (labelled("{on: \"1\", day: 2026-11-20}"), 0, "allowed, unchanged"),
        (labelled("{team: ~}"), 0, "allowed, unchanged"),
        (
            task("{generateName: nightly-, namespace: team-a}"),
            0,
            "Task team-a/nightly-*  allowed, unchanged",
        ),
    ] {
        has_result(&text, code, wanted)?;
    }
    Ok(())
}

#[test]
fn odd_values_have_the_result_of_the_api_server() -> anyhow::Result<()> {
    let comments = "    # - disabled\n".repeat(150);
    let policy = |name: &str, spec: &str| {
        POLICY
            .replace("agents", name)
            .replace("{metadata: {labels: {team: blue}}}", spec)
    };
    for (text, code, wanted) in [
        (
            TASK.replace(
                "{type: claude-code, prompt: Fix it.}",
                &format!("\n  dependsOn:\n{comments}  type: codex"),
            ),
            0,
            "allowed, unchanged",
        ),
        (
            policy("2026", "{}"),
            1,
            "  metadata.name: json: cannot unmarshal number",
        ),
        (
            policy("a", "{failurePolicy: {maxRetriesPerItem: 3.0}}"),
            0,
            "allowed, unchanged",
        ),
        (
            policy("a", "{metadata: {labels: {team: blue, area: ~}}}"),
            0,
            "allowed, unchanged",
        ),
        (
            policy("a", "{failurePolicy: {maxRetriesPerItem: 3, maxRetriesPerItem: 4}}"),
            3,
            "task.yaml:1  warning: spec.failurePolicy.maxRetriesPerItem is set more than once: its last value counts",
        ),
        (
            "apiVersion: batch/v1\nkind: Job\nmetadata: {name: a}\nspec: {template: text}\n".to_owned(),
            1,
            "  Job in version \"v1\" cannot be handled as a Job: ",
        ),
    ] {
        has_result(&text, code, wanted)?;
    }
    Ok(())
}

#[test]
fn a_null_label_is_stored_empty_and_stays() -> anyhow::Result<()> {
    let task = TASK.replace("namespace: team-a}", "namespace: team-a, labels: {team: ~}}");
    let folder = folder(&[("policy.yaml", POLICY), ("task.yaml", &task)])?;
    let run = taskgate(
        folder.path(),
        &["check", "task.yaml", "--with", "policy.yaml", "-o", "json"],
        "",
    )?;
    let report: Value = serde_json::from_str(&run.stdout)?;
    let entry = &report["objects"][0];
    ensure!(entry["object"]["metadata"]["labels"]["team"] == "", "{report}");
    ensure!(entry["changes"].is_null(), "{report}");
    Ok(())
}

#[test]
fn webhook_configurations_of_others_change_nothing() -> anyhow::Result<()> {
    let configuration = |name: &str, webhooks: &str| {
        format!(
            "apiVersion: admissionregistration.k8s.io/v1\nkind: MutatingWebhookConfiguration\nmetadata: {{name: {name}}}\n\
             webhooks:{webhooks}\n"
        )
    };
    let webhook = |name: &str, path: &str, more: &str| {
        format!(
            "\n- name: {name}\n  admissionReviewVersions: [v1]\n  sideEffects: None\n  clientConfig:\n    \
             caBundle: ${{CA_BUNDLE}}\n    service: {{name: other, namespace: other, path: {path}}}\n{more}"
        )
    };
    let rules = "  rules:\n  - {apiGroups: [batch], apiVersions: [v1], operations: [CREATE], resources: [jobs]}\n";
    for others in [
        configuration("nothing", ""),
        configuration("injector", &webhook("inject.example.com", "/mutate", rules)),
        configuration("mpi", &webhook("jobs.mpi.example.com", "/mutate/jobs", rules)),
        configuration("tekton", &webhook("tasks.other.example.com", "/mutate/tasks", "")),
    ] {
        let folder = folder(&[("others.yaml", &others), ("policy.yaml", POLICY), ("task.yaml", TASK)])?;
        let run = taskgate(folder.path(), &["check", "."], "")?;
        ensure!(
            run.code == Some(0)
                && run
                    .stdout
                    .ends_with("2 objects: 2 allowed (1 changed), 1 of other kinds\n"),
            "{others}\n{} {}",
            run.stdout,
            run.stderr
        );
    }
    let odd = "  matchConditions: [{name: odd, expression: a &&}]\n";
    let own = configuration("taskgate", &webhook("mutate.tasks.taskgate.dev", "/mutate/tasks", odd));
    let folder = folder(&[("own.yaml", &format!("# ours\n{own}")), ("task.yaml", TASK)])?;
    let run = taskgate(folder.path(), &["check", "own.yaml", "task.yaml"], "")?;
    ensure!(run.code == Some(1), "{} {}", run.stdout, run.stderr);
    for line in [
        "own.yaml:2  unreadable",
        "task.yaml:1  Task team-a/fixer-42  allowed, unchanged",
    ] {
        ensure!(
            run.stdout.lines().any(|printed| printed == line),
            "{line}\n{}",
            run.stdout
        );
    }
    Ok(())
}

#[test]
fn render_reads_tasks_only() -> anyhow::Result<()> {
    let folder = folder(&[
        ("policy.yaml", POLICY),
        ("task.yaml", TASK),
        ("text.yaml", &POLICY.replace("{metadata: ", "{metadata: text} #")),
    ])?;
    let run = |args: &[&str]| taskgate(folder.path(), args, "");
    let good = run(&["render", "policy.yaml", "task.yaml"])?;
    ensure!(
        good.code == Some(0) && good.stdout.contains("blue"),
        "{} {}",
        good.stdout,
        good.stderr
    );
    let bad = run(&["render", "policy.yaml", "policy.yaml"])?;
    ensure!(
        bad.code == Some(1)
            && bad
                .stderr
                .contains("policy.yaml: taskgate.dev/v1alpha1 TaskPolicy is no Task of kelos.dev"),
        "{}",
        bad.stderr
    );
    fs::write(
        folder.path().join("null.yaml"),
        POLICY.replace("team: blue", "team: blue, area: ~"),
    )?;
    let null = run(&["render", "null.yaml", "task.yaml"])?;
    ensure!(
        null.code == Some(0) && null.stdout == good.stdout,
        "{} {}",
        null.stdout,
        null.stderr
    );
    let odd = run(&["render", "text.yaml", "task.yaml", "--engine", "GoTemplate"])?;
    ensure!(
        odd.code == Some(1) && !odd.stderr.contains("panicked"),
        "{}",
        odd.stderr
    );
    Ok(())
}

/// A folder with a policy and `count` Tasks that it governs.
fn many_tasks(count: usize) -> anyhow::Result<tempfile::TempDir> {
    let folder = folder(&[("policy.yaml", POLICY)])?;
    for number in 0..count {
        let task = TASK.replace("fixer-42", &format!("fixer-{number}"));
        fs::write(folder.path().join(format!("{number}.yaml")), task)?;
    }
    Ok(folder)
}

#[test]
fn ten_thousand_files_are_evaluated() -> anyhow::Result<()> {
    let folder = many_tasks(10_000)?;
    let run = taskgate(folder.path(), &["check", ".", "--quiet"], "")?;
    ensure!(
        run.stdout == "10001 objects: 10001 allowed (10000 changed)\n",
        "{}",
        run.stdout
    );
    ensure!(
        run.code == Some(0) && run.stderr.is_empty(),
        "{:?} {}",
        run.code,
        run.stderr
    );
    Ok(())
}

#[test]
fn a_closed_pipe_is_no_panic() -> anyhow::Result<()> {
    // More than fits into a pipe.
    let folder = many_tasks(1_000)?;
    let mut process = Command::new(env!("CARGO_BIN_EXE_taskgate"))
        .args(["check", "."])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdout = process.stdout.take().context("stdout")?;
    stdout.read_exact(&mut [0; 10])?;
    drop(stdout);
    let output = process.wait_with_output()?;
    ensure!(output.status.code() == Some(0), "{:?}", output.status);
    ensure!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn the_examples_of_the_help_use_existing_flags() -> anyhow::Result<()> {
    for command in ["check", "test"] {
        let folder = folder(&[])?;
        let help = taskgate(folder.path(), &[command, "--help"], "")?.stdout;
        ensure!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
        let examples = help.split("Examples:").nth(1).context("examples")?;
        let words = examples.split_whitespace().filter(|word| word.starts_with("--"));
        for flag in words {
            let options = help.split("Examples:").next().context("options")?;
            ensure!(options.contains(flag), "{flag}");
        }
    }
    Ok(())
}

const SPAWNER_CRD: &str = "\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: taskspawners.kelos.dev}
spec:
  group: kelos.dev
  scope: Namespaced
  names: {kind: TaskSpawner, plural: taskspawners}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {when: {type: object}}}}}}
";

#[test]
fn the_fields_of_a_spawner_are_explained_with_what_the_cluster_makes_of_them() -> anyhow::Result<()> {
    let spawner = include_str!("../../examples/proposals/000/spawner.yaml");
    let task = "\
apiVersion: kelos.dev/v1alpha2
kind: Task
metadata: {name: my-spawner-42, namespace: default, labels: {kelos.dev/taskspawner: my-spawner}}
spec: {type: claude-code, prompt: Fix it.}
";
    let folder = folder(&[
        ("spawner.yaml", spawner),
        ("task.yaml", task),
        ("crd.yaml", SPAWNER_CRD),
    ])?;
    let run = taskgate(folder.path(), &["check", "spawner.yaml", "task.yaml"], "")?;
    let effect =
        "spec.failurePolicy: an item gets no further Task after 3 failed in a row; a change of the item resets it";
    ensure!(run.stdout.contains(effect), "{}{}", run.stdout, run.stderr);
    ensure!(
        run.stdout.contains("only after `taskgate kelos-fields enable`"),
        "{}",
        run.stdout
    );
    ensure!(
        run.stdout.contains("by TaskSpawner default/my-spawner, failurePolicy"),
        "{}",
        run.stdout
    );
    let run = taskgate(
        folder.path(),
        &["check", "spawner.yaml", "task.yaml", "--with", "crd.yaml"],
        "",
    )?;
    ensure!(
        run.stdout
            .contains("warning: spec.failurePolicy has no effect by taskgate"),
        "{}",
        run.stdout
    );
    ensure!(!run.stdout.contains("by TaskSpawner"), "{}", run.stdout);
    ensure!(run.code != Some(0), "{}", run.stdout);
    Ok(())
}
