//! The decisions of `taskgate check` on the same writes.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use taskgate_e2e::binary;
use tokio::{fs, process::Command};

use crate::{
    cluster::RandomCluster,
    differential::{Change, Sample},
    draw::CREATORS,
    send::plural,
};

/// Its decisions on all of them, after `change` in the files: a run per creator, and one for policies, which would govern the
/// Tasks; and one for all updates, each as the AdmissionReview that taskgate gets, which asks the API server for users' rights.
pub(crate) async fn check(cluster: &RandomCluster, samples: &[Sample], change: Change) -> anyhow::Result<Vec<Value>> {
    let dir = cluster.cp.dir().join("offline");
    fs::create_dir_all(&dir).await?;
    let with = dir.join("cluster.json");
    let mut objects = cluster.objects.clone();
    objects.iter_mut().for_each(change);
    fs::write(&with, list(&objects)).await?;
    let mut decided = vec![Value::Null; samples.len()];
    let mut runs = Vec::new();
    for user in CREATORS {
        for policies in [false, true] {
            let of_run =
                move |sample: &Sample| !sample.is_update() && sample.user == user && sample.is_policy() == policies;
            let mut args = vec!["--complete", "--as", user.name];
            args.extend(user.groups.iter().flat_map(|group| ["--as-group", *group]));
            runs.push((mine(samples, &of_run, |sample| sample.object.clone()), args));
        }
    }
    let kubeconfig = cluster.cp.kubeconfig().to_str().context("a path")?;
    let review = |sample: &Sample| {
        let mut review = review(sample);
        change(&mut review);
        review
    };
    let updates = mine(samples, &Sample::is_update, review);
    runs.push((updates, vec!["--live", "--kubeconfig", kubeconfig]));
    for (documents, args) in runs {
        let (numbers, documents): (Vec<_>, Vec<_>) = documents.into_iter().unzip();
        let file = dir.join("writes.json");
        fs::write(&file, list(&documents)).await?;
        for (number, object) in numbers
            .into_iter()
            .zip(run(&file, &with, &args, documents.len()).await?)
        {
            decided[number] = object;
        }
    }
    Ok(decided)
}

/// The samples that are `wanted`, by number, as documents.
fn mine(
    samples: &[Sample],
    wanted: &dyn Fn(&Sample) -> bool,
    document: impl Fn(&Sample) -> Value,
) -> Vec<(usize, Value)> {
    let mine = samples.iter().enumerate().filter(|(_, sample)| wanted(sample));
    mine.map(|(number, sample)| (number, document(sample))).collect()
}

async fn run(file: &Path, with: &Path, args: &[&str], count: usize) -> anyhow::Result<Vec<Value>> {
    let output = Command::new(binary("taskgate")?)
        .arg("check")
        .arg(file)
        .arg("--with")
        .arg(with)
        .args(args)
        .args(["-o", "json", "--ci", "none"])
        .stdin(Stdio::null())
        .output()
        .await?;
    let code = output.status.code();
    ensure!(
        matches!(code, Some(0 | 1 | 3)),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut report: Value = serde_json::from_slice(&output.stdout)?;
    let Value::Array(objects) = report["objects"].take() else {
        anyhow::bail!("no objects: {report}")
    };
    let decided = objects.len();
    ensure!(decided == count, "{decided} of {count}: {}", report["summary"]);
    Ok(objects)
}

/// What the API server would send.
fn review(sample: &Sample) -> Value {
    let Sample { user, old, object, .. } = sample;
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let groups: Vec<_> = user.groups.iter().chain(&["system:authenticated"]).collect();
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "recorded",
        "kind": {"group": group, "version": version, "kind": object["kind"]},
        "resource": {"group": group, "version": version, "resource": plural(object)},
        "operation": "UPDATE",
        "name": object["metadata"]["name"],
        "namespace": object["metadata"]["namespace"].as_str().unwrap_or_default(),
        "userInfo": {"username": user.name, "groups": groups},
        "object": object, "oldObject": old, "dryRun": true,
    }})
}

fn list(objects: &[Value]) -> Vec<u8> {
    json!({"apiVersion": "v1", "kind": "List", "items": objects})
        .to_string()
        .into_bytes()
}
