//! Helm: install, upgrade, and its messages.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use taskgate_e2e::{AuditEvent, ControlPlane, PATIENCE, condition, eventually, never, run_job};

use crate::support::{await_governed, chart, governed, plane, pods, project, task, task_with_status};

/// Installs, or upgrades to, the chart with these values; returns what it tells.
pub(crate) async fn install(
    cp: &ControlPlane,
    release: &str,
    namespace: &str,
    values: &[&str],
) -> anyhow::Result<String> {
    let chart = chart();
    let mut args = vec![
        "upgrade",
        "--install",
        release,
        &chart,
        "--namespace",
        namespace,
        "--create-namespace",
    ];
    for value in values {
        args.extend(["--set", value]);
    }
    cp.helm(args).await?.stdout_ok()
}

/// An object as it is stored.
async fn object(cp: &ControlPlane, args: &[&str]) -> anyhow::Result<Value> {
    let told = cp.kubectl(["get", "-ojson"].iter().chain(args)).await?.stdout_ok()?;
    serde_json::from_str(&told).context("kubectl printed no JSON")
}

/// The name is no name for a Service, the namespace is as long as one can be; Pod Security is as strict as it can be.
#[tokio::test]
async fn an_oddly_named_release_governs_under_its_own_roles() -> anyhow::Result<()> {
    let cp = plane().await?;
    let namespace = format!("{:-<62}9", "long");
    let labels = format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
    );
    cp.apply_yaml(&labels).await?;
    let told = install(&cp, "0.odd.one", &namespace, &["registration.failurePolicy=Fail"]).await?;
    ensure!(told.contains("are rejected (failurePolicy Fail)"), "{told}");
    let running = pods(&cp, &namespace, "taskgate-0-odd-one").await?;
    let ns = governed(&cp, "team").await?;
    eventually("no right is missing", PATIENCE, || async {
        let missing = running.metrics().await?.value("taskgate_rights_missing", &[]);
        ensure!(missing == Some(0.0), "{missing:?}");
        Ok(())
    })
    .await?;
    // One line for a denial, none for what passes, and the audit log has the same name for the review.
    ns.created(&task("passes", &json!({}))).await?;
    task_with_status(
        &ns,
        "stuck",
        &json!({}),
        &json!({"phase": "Failed", "completionTime": "2026-01-01T00:00:00Z"}),
    )
    .await?;
    let mut again = task("again", &json!({}));
    again["metadata"]["annotations"]["taskgate.dev/item"] = "stuck".into();
    let mark = cp.audit().mark()?;
    // A busy API server may not wait for an answer: then it asks again.
    let asked = AtomicUsize::new(0);
    eventually("the item is stopped", PATIENCE, || async {
        asked.fetch_add(1, Ordering::Relaxed);
        let refused = ns.create_dry_run(&again).await?.stderr_failed()?;
        ensure!(refused.contains("item stuck failed once"), "{refused}");
        Ok(())
    })
    .await?;
    let events = cp.audit().since(mark).await?;
    let tells = |event: &AuditEvent, uid: &str| event.annotations.values().any(|value| value == uid);
    let mut denials = 0;
    for process in running.processes() {
        let log = process.log()?;
        ensure!(!log.contains("a-secret-prompt"), "a prompt is in the log");
        for line in log.lines() {
            let line: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
            ensure!(line["name"] != "passes", "a line for what passed: {line}");
            if line["message"] == "denied" {
                denials += 1;
                let uid = line["uid"].as_str().context("a denial has the uid of its review")?;
                ensure!(
                    events.iter().any(|event| tells(event, uid)),
                    "no audit event tells of review {uid}"
                );
            }
        }
    }
    let asked = asked.into_inner();
    ensure!((1..=asked).contains(&denials), "{denials} lines for {asked} denials");
    Ok(())
}

#[tokio::test]
async fn an_upgrade_keeps_items_and_bundle_and_a_repeated_one_changes_nothing() -> anyhow::Result<()> {
    let cp = plane().await?;
    install(&cp, "taskgate", "gate", &["replicas=1"]).await?;
    let before = pods(&cp, "gate", "taskgate").await?;
    let ns = governed(&cp, "team").await?;
    task_with_status(
        &ns,
        "stuck",
        &json!({}),
        &json!({"phase": "Failed", "completionTime": "2026-01-01T00:00:00Z"}),
    )
    .await?;
    let items = async || object(&cp, &["workitems", "-n", ns.name()]).await;
    let item = eventually("the failure is recorded", PATIENCE, || async {
        let found = items().await?["items"][0].take();
        ensure!(found["status"]["breaker"] == "Open", "{found}");
        Ok(found)
    })
    .await?;
    let registration = ["mutatingwebhookconfiguration", "admission.taskgate.dev"];
    let stored_before = object(&cp, &registration).await?;

    // The same again: nothing is written to any object, so no controller has anything to put right.
    install(&cp, "taskgate", "gate", &["replicas=1"]).await?;
    install(&cp, "taskgate", "gate", &["replicas=1"]).await?;
    let same = object(&cp, &registration).await?;
    ensure!(
        same["metadata"]["generation"] == stored_before["metadata"]["generation"],
        "{}",
        same["metadata"]
    );
    ensure!(
        same["webhooks"] == stored_before["webhooks"],
        "the registration changed"
    );
    let bundle = &same["webhooks"][0]["clientConfig"]["caBundle"];
    ensure!(bundle.is_string(), "no caBundle");

    // Another: old and new replica run together for a while, as the Deployment would have them.
    install(
        &cp,
        "taskgate",
        "gate",
        &["replicas=2", "registration.failurePolicy=Fail", "crds.keep=false"],
    )
    .await?;
    let after = pods(&cp, "gate", "taskgate").await?;
    drop(before);
    await_governed(&ns).await?;
    let upgraded = object(&cp, &registration).await?;
    ensure!(upgraded["webhooks"][0]["failurePolicy"] == "Fail", "{upgraded}");
    ensure!(
        &upgraded["webhooks"][0]["clientConfig"]["caBundle"] == bundle,
        "the bundle was lost"
    );
    let kept = items().await?["items"][0].take();
    ensure!(
        kept["metadata"]["uid"] == item["metadata"]["uid"] && kept["status"] == item["status"],
        "{kept}"
    );
    ensure!(
        ns.stored("task.kelos.dev", "stuck").await?.is_some(),
        "the tombstone went"
    );
    never("the registration changes by itself", Duration::from_secs(2), || async {
        let now = object(&cp, &registration).await?;
        Ok((now["webhooks"] != upgraded["webhooks"]).then_some(now))
    })
    .await?;
    drop(after);
    Ok(())
}

/// `helm test` runs the doctor with rights of its own, and leaves nothing. NetworkPolicies are installed meanwhile.
#[tokio::test]
async fn helm_test_runs_the_doctor() -> anyhow::Result<()> {
    let cp = plane().await?;
    install(&cp, "taskgate", "gate", &["networkPolicy.enabled=true"]).await?;
    let _running = pods(&cp, "gate", "taskgate").await?;
    governed(&cp, "team").await?;
    let helm = async { cp.helm(["test", "taskgate", "--namespace", "gate"]).await?.stdout_ok() };
    let (told, findings) = tokio::try_join!(helm, run_job(&cp, "gate", "taskgate-test"))?;
    ensure!(told.contains("Phase:          Succeeded"), "{told}");
    ensure!(findings.contains(" 0 failures"), "{findings}");
    // What it may not read would be a warning.
    ensure!(!findings.contains("cannot be read"), "{findings}");
    let left = [
        "clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts,jobs",
        "-A",
    ];
    let left = object(&cp, &left).await?;
    let left: Vec<_> = left["items"].as_array().into_iter().flatten().collect();
    ensure!(
        left.iter().all(|object| object["metadata"]["name"] != "taskgate-test"),
        "{left:?}"
    );
    Ok(())
}

/// Every value of the chart set at once, but for the names that an upgrade keeps, what is not installed here, and a rollout that would
/// wait for a kubelet. Policies, WorkItems and
/// the bundle stay; the new replicas govern.
#[tokio::test]
async fn an_upgrade_from_the_defaults_to_every_value_keeps_what_there_is() -> anyhow::Result<()> {
    const KEPT: &str = "nameOverride=null,fullnameOverride=null,registration.name=admission.taskgate.dev,certificates.mode=self-signed,\
        monitoring.serviceMonitor.enabled=false,monitoring.prometheusRule.enabled=false,admission.clientCA.secret=null,\
        admission.clientCA.configMap=null,registration.namespaceSelector.matchLabels=null,registration.objectSelector.matchLabels=null,\
        updateStrategy.rollingUpdate.maxSurge=3";
    let cp = plane().await?;
    install(&cp, "taskgate", "gate", &["replicas=1"]).await?;
    let before = pods(&cp, "gate", "taskgate").await?;
    let ns = governed(&cp, "team").await?;
    let failed = json!({"phase": "Failed", "completionTime": "2026-01-01T00:00:00Z"});
    task_with_status(&ns, "stuck", &json!({}), &failed).await?;
    // The first of a kind in the namespace, or null.
    let first = async |kind: &str| {
        anyhow::Ok(
            object(&cp, &[kind, "-n", ns.name()]).await?["items"]
                .get(0)
                .cloned()
                .unwrap_or_default(),
        )
    };
    let item = || first("workitems");
    let recorded = eventually("the failure is recorded", PATIENCE, || async {
        let found = item().await?;
        ensure!(found["status"]["breaker"] == "Open", "{found}");
        Ok(found)
    })
    .await?;

    // serviceAccount.create is false, and sources.secrets has a namespace.
    cp.apply_yaml("{apiVersion: v1, kind: ServiceAccount, metadata: {name: gatekeeper, namespace: gate}}")
        .await?;
    cp.apply_yaml("{apiVersion: v1, kind: Namespace, metadata: {name: team-all}}")
        .await?;
    let (chart, values) = (
        chart(),
        project("e2e/tests/install/all-values.yaml").display().to_string(),
    );
    let upgrade = [
        "upgrade",
        "taskgate",
        &chart,
        "--namespace",
        "gate",
        "--values",
        &values,
        "--set",
        KEPT,
    ];
    cp.helm(upgrade).await?.stdout_ok()?;
    let after = pods(&cp, "gate", "taskgate").await?;
    ensure!(after.processes().len() == 3);
    drop(before);
    await_governed(&ns).await?;
    let kept = item().await?;
    ensure!(
        kept["metadata"]["uid"] == recorded["metadata"]["uid"] && kept["status"] == recorded["status"],
        "{kept}"
    );
    let policy = first("taskpolicies").await?;
    let accepted = condition(&policy, "Accepted").is_some_and(|accepted| accepted["status"] == "True");
    ensure!(accepted, "{policy}");
    ensure!(
        ns.stored("task.kelos.dev", "stuck").await?.is_some(),
        "the tombstone is gone"
    );
    let mut again = task("again", &json!({}));
    again["metadata"]["annotations"]["taskgate.dev/item"] = "stuck".into();
    eventually("the item is stopped", PATIENCE, || async {
        let refused = ns.create_dry_run(&again).await?.stderr_failed()?;
        ensure!(refused.contains("item stuck failed once"), "{refused}");
        Ok(())
    })
    .await?;
    drop(after);
    Ok(())
}

#[tokio::test]
async fn a_secret_may_be_read_only_where_the_values_say_so() -> anyhow::Result<()> {
    let cp = plane().await?;
    let [open, shut] = [cp.namespace("open").await?, cp.namespace("shut").await?];
    let value = format!(
        "sources.secrets[0].namespace={},sources.secrets[0].name=github-token",
        open.name()
    );
    install(&cp, "taskgate", "gate", &[&value]).await?;
    let may = async |namespace: &str, secret: &str| {
        let account = "--as=system:serviceaccount:gate:taskgate";
        let asked = cp
            .kubectl(["auth", "can-i", "get", secret, "-n", namespace, account])
            .await?;
        anyhow::Ok(asked.stdout.trim() == "yes")
    };
    ensure!(may(open.name(), "secrets/github-token").await?);
    ensure!(!may(open.name(), "secrets/another").await?);
    ensure!(!may(open.name(), "secrets").await?);
    ensure!(!may(shut.name(), "secrets/github-token").await?);
    ensure!(may("gate", "secrets/taskgate-serving-cert").await? && !may("gate", "secrets/another").await?);
    Ok(())
}
