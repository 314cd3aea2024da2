//! taskgate's rights: as many as it needs, and an error that names a missing one.

use anyhow::{Context as _, ensure};
use serde_json::json;
use taskgate_e2e::{ControlPlane, GATE_NAMESPACE, Gate, PATIENCE, Shared, eventually};

static PLANE: Shared = Shared::new(ControlPlane::builder);

/// Everything that taskgate's service account may do in a namespace that is not its own, beyond what every service account may:
/// resource, names, verbs.
const ANYWHERE: &[(&str, &str, &str)] = &[
    ("agentconfigs.kelos.dev", "", "get"),
    ("agentictasks.foreman.llmkube.dev", "", "get list"),
    ("clustertaskpolicies.taskgate.dev", "", "get list watch"),
    ("clustertaskpolicies.taskgate.dev/status", "", "patch"),
    ("configmaps", "kueue-manager-config", "list watch"),
    (CRDS, "tasks.kelos.dev", "get list watch"),
    (CRDS, "taskspawners.kelos.dev", "get list watch"),
    (CRDS, "workloads.foreman.llmkube.dev", "get list watch"),
    (CRDS, "workloads.kueue.x-k8s.io", "get list watch"),
    ("events.events.k8s.io", "", "create patch"),
    ("jobs.batch", "", "delete get list patch watch"),
    ("jobs.batch/status", "", "patch"),
    ("localqueues.kueue.x-k8s.io", "", "list watch"),
    (MUTATING, "admission.taskgate.dev", "get list patch watch"),
    ("namespaces", "", "get list watch"),
    ("pods", "", "get list patch"),
    ("subjectaccessreviews.authorization.k8s.io", "", "create"),
    ("taskpolicies.taskgate.dev", "", "get list watch"),
    ("taskpolicies.taskgate.dev/status", "", "patch"),
    ("tasks.kelos.dev", "", "create delete get list patch watch"),
    ("tasks.kelos.dev/status", "", "patch"),
    ("taskspawners.kelos.dev", "", "get list watch"),
    ("taskspawners.kelos.dev/status", "", "patch"),
    (VALIDATING, "admission.taskgate.dev", "get list patch watch"),
    ("workitems.taskgate.dev", "", "create delete get list patch watch"),
    ("workitems.taskgate.dev/status", "", "patch"),
    ("workloadpriorityclasses.kueue.x-k8s.io", "", "list watch"),
    ("workloads.foreman.llmkube.dev", "", "create delete get list watch"),
    ("workloads.kueue.x-k8s.io", "", "list watch"),
    ("workspaces.kelos.dev", "", "get list watch"),
];
/// What it may do beyond that in its own.
const AT_HOME: &[(&str, &str, &str)] = &[
    ("leases.coordination.k8s.io", "", "create"),
    ("leases.coordination.k8s.io", "taskgate-controller", "get update"),
    ("configmaps", "taskgate-disabled", "delete get list watch"),
    ("configmaps", "taskgate-kelos-fields", "list watch"),
    ("secrets", "", "create"),
    ("secrets", "taskgate-serving-cert", "get list update watch"),
    ("secrets", "taskgate-tls", "get list watch"),
];
const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";
const MUTATING: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";
const VALIDATING: &str = "validatingwebhookconfigurations.admissionregistration.k8s.io";

/// What `kubectl auth can-i --list` says that the service account `name` may do in `namespace`; URLs left out.
async fn listed(cp: &ControlPlane, name: &str, namespace: &str) -> anyhow::Result<Vec<(String, String, String)>> {
    let account = format!("--as=system:serviceaccount:{GATE_NAMESPACE}:{name}");
    let groups = ["--as-group=system:serviceaccounts", "--as-group=system:authenticated"];
    let fixed = ["auth", "can-i", "--list", "--no-headers", "-n", namespace, &account];
    let told = cp.kubectl(fixed.iter().chain(&groups)).await?.stdout_ok()?;
    let mut rows = Vec::new();
    for line in told.lines() {
        let mut columns = line.split('[').map(|part| part.trim_end().trim_end_matches(']').trim());
        let resource = columns.next().context("a row has a resource")?;
        let (urls, names, verbs) = (columns.next(), columns.next(), columns.next());
        if urls.is_some_and(|urls| !urls.is_empty()) {
            continue;
        }
        let mut verbs: Vec<_> = verbs.context("a row has verbs")?.split(' ').collect();
        verbs.sort_unstable();
        rows.push((
            resource.to_owned(),
            names.unwrap_or_default().to_owned(),
            verbs.join(" "),
        ));
    }
    rows.sort();
    Ok(rows)
}

#[tokio::test]
async fn it_has_these_rights_and_no_more() -> anyhow::Result<()> {
    let cp = PLANE.get().await?;
    let _gate = Gate::start(cp).await?;
    for (namespace, home) in [("default", false), (GATE_NAMESPACE, true)] {
        let everyone = listed(cp, "stranger", namespace).await?;
        let mut found = listed(cp, "taskgate", namespace).await?;
        found.retain(|row| !everyone.contains(row));
        let at_home = if home { AT_HOME } else { &[] };
        let mut wanted: Vec<_> = ANYWHERE
            .iter()
            .chain(at_home)
            .map(|(resource, names, verbs)| ((*resource).to_owned(), (*names).to_owned(), (*verbs).to_owned()))
            .collect();
        wanted.sort();
        let too_much: Vec<_> = found.iter().filter(|row| !wanted.contains(row)).collect();
        let missing: Vec<_> = wanted.iter().filter(|row| !found.contains(row)).collect();
        ensure!(
            too_much.is_empty() && missing.is_empty(),
            "{namespace}: too much {too_much:#?}, missing {missing:#?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_missing_right_is_named_with_the_rule_to_add() -> anyhow::Result<()> {
    let cp = ControlPlane::start().await?;
    let gate = Gate::start(&cp).await?;
    let missing = async |wanted: f64| {
        let count = gate.metrics().await?.value("taskgate_rights_missing", &[]);
        ensure!(count == Some(wanted), "{count:?}");
        anyhow::Ok(())
    };
    eventually("all rights are granted", PATIENCE, || missing(0.0)).await?;
    let role = cp
        .kubectl(["get", "clusterrole", "taskgate", "-ojson"])
        .await?
        .stdout_ok()?;
    let role: serde_json::Value = serde_json::from_str(&role)?;
    let rules = role["rules"].as_array().context("a role has rules")?;
    let narrow: Vec<_> = rules
        .iter()
        .filter(|rule| rule["resources"][0] != "tasks/status")
        .collect();
    ensure!(narrow.len() + 1 == rules.len());
    let patch = json!({"rules": narrow}).to_string();
    cp.kubectl(["patch", "clusterrole", "taskgate", "--type=merge", "-p", &patch])
        .await?
        .stdout_ok()?;
    gate.process().restart().await?;
    eventually("one is missing", PATIENCE, || missing(1.0)).await?;
    let log = gate.process().log()?;
    let to_add = "{apiGroups: [kelos.dev], resources: [tasks/status, taskspawners/status], verbs: [patch]}";
    ensure!(log.contains(to_add) && log.contains("a right is missing"), "{log}");
    let patch = json!({"rules": rules}).to_string();
    cp.kubectl(["patch", "clusterrole", "taskgate", "--type=merge", "-p", &patch])
        .await?
        .stdout_ok()?;
    eventually("none is missing", PATIENCE, || missing(0.0)).await?;
    ensure!(gate.process().log()?.contains("all rights are granted"));
    Ok(())
}

/// What an installation does without is neither granted nor called missing, and taskgate is ready although it cannot read it.
#[tokio::test]
async fn a_feature_that_is_disabled_needs_no_rights() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(foreman_standin::CRDS).start().await?;
    let gate = Gate::builder()
        .serve_flag("--no-kueue")
        .serve_flag("--no-foreman")
        .serve_flag("--no-task-retry")
        .start(&cp)
        .await?;
    for feature in ["kueue", "foreman", "task-retry"] {
        let role = format!("taskgate-{feature}");
        cp.kubectl(["delete", "clusterrole,clusterrolebinding", &role])
            .await?
            .stdout_ok()?;
    }
    gate.process().restart().await?;
    eventually("nothing is missing", PATIENCE, || async {
        let count = gate.metrics().await?.value("taskgate_rights_missing", &[]);
        ensure!(count == Some(0.0), "{count:?}");
        Ok(())
    })
    .await?;
    let log = gate.process().log()?;
    ensure!(!log.contains("a right is missing"), "{log}");
    let rows = listed(&cp, "taskgate", "default").await?;
    for resource in [
        "workloads.foreman.llmkube.dev",
        "workloads.kueue.x-k8s.io",
        "localqueues.kueue.x-k8s.io",
    ] {
        ensure!(rows.iter().all(|(of, ..)| of != resource), "{resource} is granted");
    }
    let tasks = rows.iter().find(|(of, ..)| of == "tasks.kelos.dev").context("tasks")?;
    ensure!(!tasks.2.contains("create"), "{}", tasks.2);
    Ok(())
}
