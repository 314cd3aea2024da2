//! Which policies are refused, and which of several applies.

use anyhow::ensure;
use serde_json::{Value, json};
use taskgate_e2e::{Fixture, Output, PATIENCE, eventually, job_of, task};

use crate::support::{VALIDATE_TASKS, apply_policy, governed, labelled, start};

async fn write(fixture: &Fixture<'_>, kind: &str, spec: &Value) -> anyhow::Result<Output> {
    let policy =
        json!({"apiVersion": "taskgate.dev/v1alpha1", "kind": kind, "metadata": {"generateName": "p-"}, "spec": spec});
    let args = ["create", "--dry-run=server", "-f-"];
    fixture.kubectl_with_input(args, &policy.to_string()).await
}

#[tokio::test]
async fn a_wrong_policy_is_refused_with_the_field() -> anyhow::Result<()> {
    let fixture = start("refused").await?;
    for (spec, expected) in [
        (json!({"queueName": "Agents"}), "spec.queueName"),
        (json!({"queueName": ""}), "spec.queueName"),
        (json!({"queueName": "a".repeat(300)}), "spec.queueName"),
        (
            json!({"queuePriorityClass": "high"}),
            "queuePriorityClass needs queueName",
        ),
        (json!({"queueMode": "Warn"}), "queueMode needs queueName"),
        (json!({"mode": "Sometimes"}), "spec.mode"),
        (json!({"priority": 2_000_000}), "spec.priority"),
        (
            json!({"failurePolicy": {"maxRetriesPerItem": -1}}),
            "spec.failurePolicy.maxRetriesPerItem",
        ),
        (
            json!({"failurePolicy": {"maxRetriesPerItem": 1001}}),
            "spec.failurePolicy.maxRetriesPerItem",
        ),
        (
            json!({"failurePolicy": {"maxRetriesPerItem": "3"}}),
            "spec.failurePolicy.maxRetriesPerItem",
        ),
        (json!({"selector": {"taskTypes": [""]}}), "spec.selector.taskTypes[0]"),
        (
            json!({"selector": {"taskSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}}),
            "spec.selector.taskSelector",
        ),
        (json!({"metadata": {"labels": {"-a": "b"}}}), "spec.metadata.labels[-a]"),
        (
            json!({"metadata": {"labels": {"a/b/c": "b"}}}),
            "spec.metadata.labels[a/b/c]",
        ),
        (
            json!({"metadata": {"labels": {"a": "not legal"}}}),
            "spec.metadata.labels[a]",
        ),
        (
            json!({"metadata": {"labels": {"kelos.dev/task": "x"}}}),
            "spec.metadata.labels[kelos.dev/task]",
        ),
        (
            json!({"metadata": {"labels": {"taskgate.dev/item": "x"}}}),
            "spec.metadata.labels[taskgate.dev/item]",
        ),
        (
            json!({"metadata": {"annotations": {"a b": "x"}}}),
            "spec.metadata.annotations[a b]",
        ),
    ] {
        for kind in ["TaskPolicy", "ClusterTaskPolicy"] {
            let told = write(&fixture, kind, &spec).await?.stderr_failed()?;
            ensure!(told.contains(expected), "{kind} {spec}: {told}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn all_errors_of_a_policy_are_in_one_message() -> anyhow::Result<()> {
    let fixture = start("problems").await?;
    let spec = json!({"metadata": {"labels": {"-a": "b", "c": "?"}, "annotations": {"d/e/f": ""}}});
    let told = write(&fixture, "TaskPolicy", &spec).await?.stderr_failed()?;
    for field in [
        "spec.metadata.labels[-a]",
        "spec.metadata.labels[c]",
        "spec.metadata.annotations[d/e/f]",
    ] {
        ensure!(told.contains(field), "{told}");
    }
    Ok(())
}

#[tokio::test]
async fn nulls_in_a_policy_mean_not_given() -> anyhow::Result<()> {
    let fixture = start("policynulls").await?;
    let spec = json!({
        "selector": null, "failurePolicy": null, "cancellationPolicy": null, "retry": null, "queueName": "agents",
        "metadata": {"labels": null, "annotations": null, "engine": null},
    });
    write(&fixture, "TaskPolicy", &spec).await?.stdout_ok().map(drop)
}

#[tokio::test]
async fn a_policy_without_a_section_warns() -> anyhow::Result<()> {
    let fixture = start("empty").await?;
    let output = write(&fixture, "TaskPolicy", &json!({"mode": "Warn"})).await?;
    ensure!(
        output.warnings() == ["taskgate: the policy has no section, so it does nothing yet"],
        "{:?}",
        output.warnings()
    );
    output.stdout_ok().map(drop)
}

#[tokio::test]
async fn modes_observe_warn_and_enforce() -> anyhow::Result<()> {
    let fixture = start("modes").await?;
    for (mode, warnings, changed) in [
        ("Off", vec![], false),
        ("Observe", vec![], false),
        ("Warn", vec!["taskgate: TaskPolicy/agents: would set team"], false),
        ("Enforce", vec![], true),
    ] {
        apply_policy(
            &fixture,
            "agents",
            json!({"mode": mode, "metadata": {"labels": {"team": "blue"}}}),
        )
        .await?;
        let output = fixture.create(&task(&mode.to_lowercase())).await?;
        ensure!(output.warnings() == warnings, "{mode}: {:?}", output.warnings());
        output.stdout_ok()?;
        let get = [
            "get",
            "tasks.kelos.dev",
            &mode.to_lowercase(),
            "-ojsonpath={.metadata.labels.team}",
        ];
        let team = fixture.kubectl(get).await?.stdout_ok()?;
        ensure!((team == "blue") == changed, "{mode}: {team:?}");
    }
    let labels = [("section", "metadata"), ("code", "MetadataSet"), ("mode", "observe")];
    let observed = fixture.gate.metrics().await?.value("taskgate_reasons_total", &labels);
    ensure!(
        observed.is_some_and(|count| count >= 1.0),
        "what Observe would have done is counted: {observed:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_section_may_have_a_mode_of_its_own() -> anyhow::Result<()> {
    let spec = json!({
        "mode": "Observe",
        "metadata": {"mode": "Enforce", "labels": {"team": "blue"}},
        "queueName": "agents", "queueMode": "Warn",
    });
    let fixture = governed("sections", spec).await?;
    let owner = fixture.created(&task("a")).await?;
    ensure!(owner["metadata"]["labels"]["team"] == "blue", "{owner}");
    let output = fixture.create(&job_of(&owner)).await?;
    ensure!(
        output.warnings() == ["taskgate: TaskPolicy/agents: would suspend the Job and give it to LocalQueue agents"],
        "{:?}",
        output.warnings()
    );
    Ok(())
}

#[tokio::test]
async fn for_each_section_the_policy_with_the_highest_priority_applies() -> anyhow::Result<()> {
    let fixture = start("priority").await?;
    let label = |team: &str| json!({"labels": {"team": team}});
    apply_policy(
        &fixture,
        "a-weak",
        json!({"metadata": label("weak"), "queueName": "weak"}),
    )
    .await?;
    apply_policy(
        &fixture,
        "b-strong",
        json!({"priority": 5, "metadata": label("strong")}),
    )
    .await?;
    apply_policy(
        &fixture,
        "c-exempts",
        json!({"priority": 9, "selector": {"spawnerNames": ["vip"]}, "metadata": {"mode": "Off"}}),
    )
    .await?;
    let owner = fixture.created(&task("a")).await?;
    ensure!(owner["metadata"]["labels"]["team"] == "strong", "{owner}");
    let job = fixture.created(&job_of(&owner)).await?;
    ensure!(
        job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "weak",
        "{job}"
    );
    let mut vip = task("vip-1");
    vip["metadata"]["labels"] = json!({"kelos.dev/taskspawner": "vip"});
    let vip = fixture.created(&vip).await?;
    ensure!(
        vip["metadata"]["labels"]["team"].is_null(),
        "a section that is Off wins, and does nothing: {vip}"
    );
    Ok(())
}

#[tokio::test]
async fn a_cluster_policy_applies_to_the_namespaces_that_it_selects() -> anyhow::Result<()> {
    let fixture = labelled("cluster", &[("agents", "cluster-test")]).await?;
    let other = start("elsewhere").await?;
    let policy = json!({
        "apiVersion": "taskgate.dev/v1alpha1", "kind": "ClusterTaskPolicy", "metadata": {"name": fixture.ns.name()},
        "spec": {
            "namespaceSelector": {"matchLabels": {"agents": "cluster-test"}},
            "metadata": {"labels": {"team": "cluster"}}, "queueName": "cluster",
        },
    });
    fixture.cp.apply_yaml(&policy.to_string()).await?;
    eventually("the cluster policy is in force", PATIENCE, || async {
        let seen = fixture.dry_run(&task("a")).await?;
        ensure!(seen["metadata"]["labels"]["team"] == "cluster", "{seen}");
        Ok(())
    })
    .await?;
    let elsewhere = other.dry_run(&task("a")).await?;
    ensure!(elsewhere["metadata"]["labels"].is_null(), "{elsewhere}");
    apply_policy(&fixture, "own", json!({"metadata": {"labels": {"team": "own"}}})).await?;
    let owner = fixture.created(&task("a")).await?;
    ensure!(
        owner["metadata"]["labels"]["team"] == "own",
        "among equals the namespace's policy wins: {owner}"
    );
    let job = fixture.created(&job_of(&owner)).await?;
    ensure!(
        job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "cluster",
        "{job}"
    );
    fixture
        .cp
        .kubectl(["delete", "clustertaskpolicy", fixture.ns.name()])
        .await?
        .stdout_ok()
        .map(drop)
}

#[tokio::test]
async fn a_policy_may_select_by_the_spawners_labels() -> anyhow::Result<()> {
    let spec = json!({"selector": {"spawnerSelector": {"matchLabels": {"tier": "gold"}}}, "metadata": {"labels": {"sla": "gold"}}});
    let fixture = governed("spawners", spec).await?;
    for (name, tier) in [("rich", "gold"), ("poor", "tin")] {
        let spawner = json!({
            "apiVersion": "kelos.dev/v1alpha2", "kind": "TaskSpawner", "metadata": {"name": name, "labels": {"tier": tier}},
            "spec": {"suspend": true, "when": {"cron": {"schedule": "0 0 1 1 *"}}, "taskTemplate": {
                "type": "claude-code", "promptTemplate": "x", "credentials": {"type": "none"}}},
        });
        fixture.apply_yaml(&spawner.to_string()).await?;
        let mut made = task(&format!("{name}-1"));
        made["metadata"]["labels"] = json!({"kelos.dev/taskspawner": name});
        let made = fixture.created(&made).await?;
        ensure!(
            (made["metadata"]["labels"]["sla"] == "gold") == (name == "rich"),
            "{made}"
        );
    }
    let unspawned = fixture.created(&task("unspawned")).await?;
    ensure!(unspawned["metadata"]["labels"].is_null(), "{unspawned}");
    Ok(())
}

/// The audit log has the decision, its reasons, and the policy by which a Task was changed.
#[tokio::test]
async fn the_audit_log_has_verdict_policy_and_reasons() -> anyhow::Result<()> {
    let fixture = governed("audited", json!({"metadata": {"labels": {"team": "blue"}}})).await?;
    let mark = fixture.cp.audit().mark()?;
    fixture.created(&task(&"l".repeat(64))).await?;
    let events = fixture.cp.audit().since(mark).await?;
    let event = events
        .iter()
        .find(|event| event.verb == "create" && event.object_ref.namespace == fixture.ns.name());
    let annotations = event.map(|event| event.annotations.clone()).unwrap_or_default();
    let told = |webhook: &str, key: &str| annotations.get(&format!("{webhook}/{key}")).map(String::as_str);
    ensure!(told(VALIDATE_TASKS, "verdict") == Some("warned"), "{annotations:?}");
    ensure!(
        told(VALIDATE_TASKS, "reasons") == Some("NameTooLong/Enforce"),
        "{annotations:?}"
    );
    ensure!(
        told(crate::support::MUTATE_TASKS, "policies") == Some("TaskPolicy/agents"),
        "{annotations:?}"
    );
    Ok(())
}

/// Policies that admission refuses can be stored while taskgate is not asked, as in a namespace that is opted out.
#[tokio::test]
async fn of_too_many_policies_the_oldest_are_in_force() -> anyhow::Result<()> {
    let fixture = labelled("toomany", &[("taskgate.dev/admission", "disabled")]).await?;
    let policy = |name: String| {
        let spec = json!({"queueName": "agents"});
        json!({"apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": name}, "spec": spec})
    };
    let items: Vec<_> = (0..70).map(|index| policy(format!("p{index:02}"))).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    fixture
        .kubectl_with_input(["create", "-f-"], &list.to_string())
        .await?
        .stdout_ok()?;
    let reasons = async || {
        let path = "-ojsonpath={range .items[*]}{.metadata.name}={.status.conditions[0].reason} {end}";
        fixture.kubectl(["get", "taskpolicies", path]).await?.stdout_ok()
    };
    let until = async |in_force: usize, last: &str| {
        eventually("the oldest policies are in force", PATIENCE, || async {
            let reasons = reasons().await?;
            let found = reasons.matches("=InForce").count();
            ensure!(found == in_force && reasons.contains(last), "{reasons}");
            Ok(())
        })
        .await
    };
    until(64, "p63=InForce p64=TooManyPolicies p65=TooManyPolicies").await?;
    fixture.kubectl(["delete", "taskpolicy", "p00"]).await?.stdout_ok()?;
    until(64, "p63=InForce p64=InForce p65=TooManyPolicies").await?;
    let name = fixture.ns.name();
    fixture
        .cp
        .kubectl(["label", "namespace", name, "taskgate.dev/admission-"])
        .await?
        .stdout_ok()?;
    eventually("one more policy is refused", PATIENCE, || async {
        let told = write(&fixture, "TaskPolicy", &json!({"queueName": "agents"}))
            .await?
            .stderr_failed()?;
        let expected = format!("there are 64 TaskPolicies in namespace {name} already");
        ensure!(told.contains(&expected), "{told}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_schema_bounds_keys_and_templates() -> anyhow::Result<()> {
    let fixture = start("bounds").await?;
    let keys =
        |count: usize| -> serde_json::Map<_, _> { (0..count).map(|key| (format!("k{key}"), json!("x"))).collect() };
    for (metadata, expected) in [
        (
            json!({"labels": keys(33), "annotations": keys(32)}),
            "a policy may set 64 keys",
        ),
        (
            json!({"annotations": {"a": "x".repeat(2049)}}),
            "spec.metadata.annotations.a",
        ),
        (
            json!({"annotations": (0..9).map(|key| (format!("k{key}"), json!(format!("{{{{ user }}}}{}", "x".repeat(2000))))).collect::<serde_json::Map<_, _>>()}),
            "the templates have",
        ),
    ] {
        let told = write(&fixture, "TaskPolicy", &json!({"metadata": metadata}))
            .await?
            .stderr_failed()?;
        ensure!(told.contains(expected), "{told}");
    }
    Ok(())
}
