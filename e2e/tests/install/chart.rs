//! The chart as it is rendered, without installing it.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, Shared};

use crate::support::{chart, project};

static PLANE: Shared = Shared::new(ControlPlane::builder);

/// Every value, and none at its default.
const ALL_VALUES: &str = "e2e/tests/install/all-values.yaml";

async fn template(cp: &ControlPlane, release: &str, namespace: &str, flags: &[&str]) -> anyhow::Result<String> {
    let chart = chart();
    let fixed = ["template", release, &chart, "--namespace", namespace];
    cp.helm(fixed.iter().chain(flags)).await?.stdout_ok()
}

/// One installation, told twice: with the usual names the chart says what the kustomize base says.
#[tokio::test]
async fn the_chart_and_the_kustomize_base_are_equivalent() -> anyhow::Result<()> {
    let cp = PLANE.get().await?;
    let base = project("manifests/base").display().to_string();
    let base = documents(&cp.kubectl(["kustomize", &base]).await?.stdout_ok()?)?;
    let flags = ["--set", "uninstall.hook=false,crds.keep=false"];
    let chart = documents(&template(cp, "taskgate", "taskgate-system", &flags).await?)?;
    for mut wanted in base {
        if wanted["kind"] == "Namespace" {
            continue;
        }
        let find = |object: &&Value| {
            object["kind"] == wanted["kind"] && object["metadata"]["name"] == wanted["metadata"]["name"]
        };
        let mut found = chart
            .iter()
            .find(find)
            .with_context(|| format!("not in the chart: {} {}", wanted["kind"], wanted["metadata"]["name"]))?
            .clone();
        ensure!(
            found["metadata"]["labels"]["app.kubernetes.io/part-of"] == "taskgate",
            "{}",
            found["metadata"]
        );
        for object in [&mut wanted, &mut found] {
            strip(object);
        }
        ensure!(found == wanted, "the chart says\n{found:#}\nand the base\n{wanted:#}");
    }
    Ok(())
}

/// Takes away what differs on purpose: labels of the release; flags, which the chart spells out, at their defaults.
fn strip(object: &mut Value) {
    object["metadata"]["labels"] = Value::Null;
    for pointer in [
        "/spec/template/metadata/labels",
        "/spec/template/spec/containers/0/args",
        "/spec/selector",
        "/spec/podSelector",
        "/spec/template/spec/topologySpreadConstraints/0/labelSelector",
    ] {
        if let Some(value) = object.pointer_mut(pointer) {
            *value = Value::Null;
        }
    }
    if object["kind"] == "Deployment"
        && let Some(container) = object["spec"]["template"]["spec"]["containers"][0].as_object_mut()
    {
        container.remove("imagePullPolicy");
    }
}

#[tokio::test]
async fn odd_names_give_legal_names_and_renders_are_identical() -> anyhow::Result<()> {
    let cp = PLANE.get().await?;
    let long = "n".repeat(63);
    let release = "r".repeat(53);
    for (release, namespace) in [
        ("taskgate", "taskgate-system"),
        ("0", "123"),
        ("my.odd-release.2", "team-a"),
        ("taskgate-blue", "default"),
        (release.as_str(), long.as_str()),
    ] {
        let flags = ["--set", "monitoring.dashboard.enabled=true"];
        let first = template(cp, release, namespace, &flags).await?;
        ensure!(
            first == template(cp, release, namespace, &flags).await?,
            "{release} differs from itself"
        );
        let namespace_yaml = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: \"{namespace}\"}}}}");
        cp.apply_yaml(&namespace_yaml).await?;
        // The API server judges every name and label, CRDs aside: they are the same whatever the release is called.
        let others: Vec<_> = documents(&first)?
            .into_iter()
            .filter(|object| object["kind"] != "CustomResourceDefinition")
            .collect();
        for object in &others {
            let args = ["apply", "--server-side", "--dry-run=server", "-f-"];
            let applied = cp.kubectl_with_input(args, &object.to_string()).await?;
            applied
                .stdout_ok()
                .with_context(|| format!("{release} in {namespace}"))?;
            let of = &object["metadata"]["namespace"];
            ensure!(of.is_null() || of == namespace, "{}: {of}", object["metadata"]["name"]);
        }
        // What is called by one name everywhere.
        let service = others
            .iter()
            .find(|object| object["kind"] == "Service")
            .context("a Service")?;
        let registration = others
            .iter()
            .find(|object| object["kind"] == "MutatingWebhookConfiguration")
            .context("a registration")?;
        for webhook in registration["webhooks"].as_array().into_iter().flatten() {
            let called = &webhook["clientConfig"]["service"];
            ensure!(
                called["name"] == service["metadata"]["name"] && called["namespace"] == namespace,
                "{called}"
            );
            let excluded = &webhook["namespaceSelector"]["matchExpressions"][0]["values"];
            ensure!(
                excluded
                    .as_array()
                    .is_some_and(|names| names.iter().any(|name| name == namespace)),
                "{excluded}"
            );
        }
    }
    Ok(())
}

/// No other image, in hooks neither; no random value, and no request to the cluster.
#[tokio::test]
async fn only_taskgates_own_image_is_run() -> anyhow::Result<()> {
    let cp = PLANE.get().await?;
    let rendered = template(
        cp,
        "taskgate",
        "taskgate-system",
        &["--set", "image.registry=mine,image.repository=gate,image.tag=v7"],
    )
    .await?;
    let images: Vec<_> = rendered
        .lines()
        .filter(|line| line.trim_start().starts_with("image:"))
        .map(str::trim)
        .collect();
    // Of the replicas, of the test and of the hook before the release is uninstalled.
    ensure!(images == ["image: \"mine/gate:v7\""; 3], "{images:?}");
    for template in std::fs::read_dir(project("manifests/chart/templates"))? {
        let path = template?.path();
        let text = std::fs::read_to_string(&path)?;
        for word in ["lookup ", "genCA", "genSelfSigned", "rand", "now ", "uuidv4"] {
            ensure!(
                !text.contains(&format!("{{{{ {word}")) && !text.contains(&format!("({word}")),
                "{path:?}: {word}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_value_is_refused_with_its_path() -> anyhow::Result<()> {
    let cp = PLANE.get().await?;
    for (value, told) in [
        ("replicass=3", "additional properties 'replicass' not allowed"),
        ("replicas=0", "at '/replicas': minimum: got 0, want 1"),
        ("registration.failurePolicy=Never", "at '/registration/failurePolicy'"),
        (
            "registration.mutatingTimeoutSeconds=30",
            "at '/registration/mutatingTimeoutSeconds'",
        ),
        ("registration.name=kueue-before", "at '/registration/name'"),
        ("admission.lameDuck=soon", "at '/admission/lameDuck'"),
        ("admission.lameDuck=20m", "at '/admission/lameDuck'"),
        ("sources.minInterval=500ms", "at '/sources/minInterval'"),
        ("sources.minInterval=11m", "at '/sources/minInterval'"),
        ("certificates.mode=none", "at '/certificates/mode'"),
        (
            "sources.secrets[0].namespace=team",
            "at '/sources/secrets/0': missing property 'name'",
        ),
        ("log.format=xml", "at '/log/format'"),
        ("admission.clientCA.secret=A_B", "at '/admission/clientCA/secret'"),
        (
            "networkPolicy.apiServerCIDRs[0]=10.0.0.1",
            "at '/networkPolicy/apiServerCIDRs/0'",
        ),
        ("service.port=https", "at '/service/port': got string, want integer"),
    ] {
        let refused = cp
            .helm(["template", "taskgate", &chart(), "--set", value])
            .await?
            .stderr_failed()?;
        ensure!(refused.contains(told), "{value}: {refused}");
    }
    Ok(())
}

/// The Job before `helm uninstall` starts wherever taskgate itself does, and reaches the API server; no selector takes it for a replica.
#[tokio::test]
async fn the_hook_runs_where_taskgate_runs() -> anyhow::Result<()> {
    let cp = PLANE.get().await?;
    let values = json!({
        "imagePullSecrets": [{"name": "registry"}],
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "priorityClassName": "high",
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"]}]},
        ]}}},
        // No port: not every one.
        "networkPolicy": {"enabled": true, "apiServerPorts": [], "sources": false},
    });
    let values: Vec<_> = values
        .as_object()
        .into_iter()
        .flatten()
        .flat_map(|(name, value)| ["--set-json".to_owned(), format!("{name}={value}")])
        .collect();
    let flags: Vec<_> = values.iter().map(String::as_str).collect();
    let rendered = documents(&template(cp, "taskgate", "taskgate-system", &flags).await?)?;
    let find = |kind: &str, name: &str| {
        let found = rendered
            .iter()
            .find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.with_context(|| format!("no {kind} {name}"))
    };
    let replica = &find("Deployment", "taskgate")?["spec"]["template"];
    let hook = &find("Job", "taskgate-uninstall")?["spec"]["template"];
    for pointer in [
        "/spec/nodeSelector",
        "/spec/tolerations",
        "/spec/priorityClassName",
        "/spec/affinity",
    ] {
        let of_the_replica = replica.pointer(pointer).filter(|value| !value.is_null());
        ensure!(
            of_the_replica.is_some() && of_the_replica == hook.pointer(pointer),
            "{pointer}: {hook:#}"
        );
    }
    ensure!(
        hook["spec"]["containers"][0]["env"][0]["name"] == "HTTPS_PROXY",
        "{hook:#}"
    );
    let secrets = |name| anyhow::Ok(find("ServiceAccount", name)?["imagePullSecrets"].clone());
    ensure!(
        secrets("taskgate")? == json!([{"name": "registry"}]) && secrets("taskgate")? == secrets("taskgate-uninstall")?
    );

    let policies = ["taskgate", "taskgate-hooks"].map(|name| find("NetworkPolicy", name));
    let [own, hooks] = policies;
    let (own, hooks) = (own?, hooks?);
    let selects = |selector: &Value, pod: &Value| {
        let mut labels = selector.as_object().into_iter().flatten();
        labels.all(|(key, value)| pod["metadata"]["labels"][key] == *value)
    };
    let service = find("Service", "taskgate")?;
    for (selector, of_the_replica) in [
        (&service["spec"]["selector"], true),
        (&own["spec"]["podSelector"]["matchLabels"], true),
        (&hooks["spec"]["podSelector"]["matchLabels"], false),
    ] {
        ensure!(selects(selector, replica) == of_the_replica, "{selector}");
        ensure!(selects(selector, hook) != of_the_replica, "{selector}");
    }
    ensure!(own["spec"]["egress"] == hooks["spec"]["egress"], "{hooks:#}");
    let names = json!([{"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}]);
    ensure!(own["spec"]["egress"] == names, "{own:#}");
    Ok(())
}

/// A replica that lets the API server notice for longer is not killed meanwhile.
#[tokio::test]
async fn the_grace_period_is_longer_than_the_lame_duck() -> anyhow::Result<()> {
    let cp = PLANE.get().await?;
    for (lame_duck, wanted) in [("5s", 30), ("25s", 50), ("1m30s", 115), ("10m", 625), ("500ms", 25)] {
        let value = format!("admission.lameDuck={lame_duck}");
        let rendered = documents(&template(cp, "taskgate", "gate", &["--set", &value]).await?)?;
        let periods: Vec<_> = rendered
            .iter()
            .filter(|object| object["kind"] == "Deployment")
            .map(|object| &object["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])
            .collect();
        ensure!(periods == [wanted], "{lame_duck}: {periods:?}");
    }
    Ok(())
}

/// The flags that the chart writes are flags that the binary knows, with values that it takes.
#[tokio::test]
async fn the_binary_accepts_the_charts_flags() -> anyhow::Result<()> {
    let cp = PLANE.get().await?;
    let all = "admission.clientCA.secret=callers,admission.clientCA.names={a,b},monitoring.auth=true";
    let rendered = documents(&template(cp, "taskgate", "taskgate-system", &["--set", all]).await?)?;
    let args = |kind: &str, name: &str| -> anyhow::Result<Vec<String>> {
        let object = rendered
            .iter()
            .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
            .with_context(|| format!("no {kind} {name}"))?;
        let args = object["spec"]["template"]["spec"]["containers"][0]["args"]
            .as_array()
            .context("no args")?;
        Ok(args.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect())
    };
    for (kind, name) in [
        ("Deployment", "taskgate"),
        ("Job", "taskgate-uninstall"),
        ("Job", "taskgate-test"),
    ] {
        // The last flag is unknown: clap names it only if it has understood the ones before.
        let output = tokio::process::Command::new(taskgate_e2e::binary("taskgate")?)
            .args(args(kind, name)?)
            .arg("--the-end")
            .output()
            .await?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            told.contains("unexpected argument '--the-end'"),
            "{kind} {name}: {told}"
        );
    }
    Ok(())
}

/// What closes the ports to pods: a CA for clients, the addresses of API servers, tokens for metrics. None of it by default.
#[tokio::test]
async fn the_ports_are_closed_as_the_values_say() -> anyhow::Result<()> {
    let cp = PLANE.get().await?;
    let render = async |flags: &[&str]| documents(&template(cp, "taskgate", "taskgate-system", flags).await?);
    let find = |rendered: &[Value], kind: &str, name: &str| {
        let mut found = rendered.iter();
        found
            .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
            .cloned()
    };
    let usual = render(&["--set", "monitoring.serviceMonitor.enabled=true"]).await?;
    ensure!(find(&usual, "ClusterRole", "taskgate-metrics-auth").is_none());
    ensure!(!usual.iter().any(|object| object.to_string().contains("tokenreviews")));
    for kind in ["secret", "configMap"] {
        let values = format!(
            "admission.clientCA.{kind}=callers,networkPolicy.enabled=true,networkPolicy.apiServerCIDRs={{10.0.0.10/32,fd00::1/128}},\
             monitoring.auth=true,monitoring.serviceMonitor.enabled=true"
        );
        let closed = render(&["--set", &values]).await?;
        let objects: Vec<_> = closed
            .iter()
            .filter(|object| object["kind"] != "CustomResourceDefinition" && object["kind"] != "ServiceMonitor")
            .collect();
        cp.apply_yaml("{apiVersion: v1, kind: Namespace, metadata: {name: taskgate-system}}")
            .await?;
        for object in objects {
            let args = ["apply", "--server-side", "--dry-run=server", "-f-"];
            cp.kubectl_with_input(args, &object.to_string()).await?.stdout_ok()?;
        }
        let pod = find(&closed, "Deployment", "taskgate").context("a Deployment")?["spec"]["template"]["spec"].take();
        let args = pod["containers"][0]["args"].to_string();
        ensure!(
            args.contains("--client-ca=/etc/taskgate/clients/ca.crt") && args.contains("--metrics-auth"),
            "{args}"
        );
        ensure!(pod["volumes"][0].to_string().contains("callers"), "{}", pod["volumes"]);
        let policy = find(&closed, "NetworkPolicy", "taskgate").context("a NetworkPolicy")?;
        let wanted = json!([
            {"from": [{"ipBlock": {"cidr": "10.0.0.10/32"}}, {"ipBlock": {"cidr": "fd00::1/128"}}], "ports": [{"port": "admission"}]},
            {"ports": [{"port": "metrics"}]},
        ]);
        ensure!(policy["spec"]["ingress"] == wanted, "{}", policy["spec"]["ingress"]);
        let role = find(&closed, "ClusterRole", "taskgate-metrics-auth").context("a ClusterRole")?;
        ensure!(role["rules"][0]["resources"] == json!(["tokenreviews"]), "{role}");
        let monitor = find(&closed, "ServiceMonitor", "taskgate").context("a ServiceMonitor")?;
        ensure!(
            monitor["spec"]["endpoints"][0]["bearerTokenFile"].is_string(),
            "{monitor}"
        );
    }
    Ok(())
}

/// `all-values.yaml` sets every value of the schema to something other than its default,
/// and the API server accepts what is rendered.
#[tokio::test]
async fn the_api_server_accepts_the_chart_with_every_value_set() -> anyhow::Result<()> {
    let cp = PLANE.get().await?;
    let schema = std::fs::read_to_string(project("manifests/chart/values.schema.json"))?;
    let schema: Value = serde_json::from_str(&schema)?;
    let values: Value = serde_saphyr::from_str(&std::fs::read_to_string(project(ALL_VALUES))?)?;
    let mut usual = Vec::new();
    unset("", &schema, &values, &mut usual);
    ensure!(usual.is_empty(), "{ALL_VALUES} leaves at their defaults: {usual:?}");

    cp.apply_yaml("{apiVersion: v1, kind: Namespace, metadata: {name: team-all}}")
        .await?;
    let values = project(ALL_VALUES).display().to_string();
    let rendered = documents(&template(cp, "all", "team-all", &["--values", &values]).await?)?;
    for object in &rendered {
        let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
        let metadata = &object["metadata"];
        // The test's extra objects are as they are written.
        if metadata["labels"]["extra"].is_null() {
            ensure!(
                metadata["labels"]["cost-center"] == "agents",
                "{kind} {name}: {metadata}"
            );
            ensure!(
                metadata["annotations"]["example.com/owner"] == "platform",
                "{kind} {name}: {metadata}"
            );
        }
        let args = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f-"];
        let applied = cp.kubectl_with_input(args, &object.to_string()).await?.stdout_ok();
        // Kinds of other systems, which are not installed here.
        let group = object["apiVersion"].as_str().unwrap_or_default();
        if !group.starts_with("cert-manager.io/") && !group.starts_with("monitoring.coreos.com/") {
            applied.with_context(|| format!("{kind} {name}"))?;
        }
    }
    let text = serde_json::to_string(&rendered)?;
    for rendered in [
        "registry.example.com/mirror/taskgate:v9@sha256:",
        "\"--cert-lifetime=720h\"",
        "0.0.0.0:19443",
        "0.0.0.0:18080",
        "\"serviceAccountName\":\"gatekeeper\"",
        "https://wiki.example.com/taskgate#taskgatedown",
        "extra-of-all",
    ] {
        ensure!(text.contains(rendered), "{rendered} is not rendered");
    }
    Ok(())
}

/// The values that have a default in `schema` and that `values` leaves at it.
fn unset(path: &str, schema: &Value, values: &Value, usual: &mut Vec<String>) {
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match schema.get("default") {
            Some(default) if values[name].is_null() || values[name] == *default => usual.push(path),
            Some(_) => {}
            None => unset(&path, schema, &values[name], usual),
        }
    }
}

/// With NetworkPolicies the pods reach what they need and no more: the ports of the values are those of the rules.
#[tokio::test]
async fn egress_is_to_the_ports_of_the_values() -> anyhow::Result<()> {
    let cp = PLANE.get().await?;
    let ports = async |values: &str| {
        let values = format!("networkPolicy.enabled=true,{values}");
        let rendered = documents(&template(cp, "taskgate", "gate", &["--set", &values]).await?)?;
        let policy = rendered
            .iter()
            .find(|object| object["kind"] == "NetworkPolicy" && object["metadata"]["name"] == "taskgate");
        let rules = policy.context("a NetworkPolicy")?["spec"]["egress"].clone();
        let rules = rules.as_array().into_iter().flatten();
        let ports = rules.flat_map(|rule| {
            rule["ports"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|port| port["port"].clone())
        });
        anyhow::Ok(ports.collect::<Vec<_>>())
    };
    ensure!(ports("sources.minInterval=30s").await? == [53, 53, 443, 6443, 443, 8888]);
    let enterprise = "sources.githubAPI=https://ghe.corp:8443/api/v3,sources.hosts={a.corp,b.corp:444},sources.ghproxyURL=http://proxy";
    ensure!(ports(enterprise).await? == [53, 53, 443, 6443, 443, 8443, 444, 80]);
    ensure!(ports("networkPolicy.sources=false,networkPolicy.apiServerPorts={16443}").await? == [53, 53, 16443]);
    let usual = template(cp, "taskgate", "gate", &[]).await?;
    ensure!(!usual.contains("NetworkPolicy"), "it is on by default");
    Ok(())
}

/// A quota for critical pods where the class is one, and not else.
#[tokio::test]
async fn a_critical_priority_class_has_its_quota() -> anyhow::Result<()> {
    let cp = PLANE.get().await?;
    for (class, quotas) in [("", 0), ("high", 0), ("system-cluster-critical", 1)] {
        let value = format!("priorityClassName={class}");
        let rendered = documents(&template(cp, "taskgate", "gate", &["--set", &value]).await?)?;
        let found = rendered
            .iter()
            .filter(|object| object["kind"] == "ResourceQuota")
            .count();
        ensure!(found == quotas, "{class}: {found}");
    }
    Ok(())
}

/// The rights of a feature come and go with it, and the admission policies with their value.
#[tokio::test]
async fn rights_follow_the_values() -> anyhow::Result<()> {
    let cp = PLANE.get().await?;
    let all = template(cp, "taskgate", "team-x", &[]).await?;
    let user = "system:serviceaccount:team-x:taskgate";
    ensure!(all.contains(user), "no policy for the service account of the release");
    for (value, suffix) in [("kueue", "kueue"), ("foreman", "foreman"), ("taskRetry", "task-retry")] {
        let role = format!("name: taskgate-{suffix}\n");
        ensure!(
            all.contains(&role) && !all.contains(&format!("--no-{suffix}")),
            "{value}"
        );
        let flag = format!("features.{value}=false");
        let without = template(cp, "taskgate", "team-x", &["--set", &flag]).await?;
        ensure!(
            !without.contains(&role) && without.contains(&format!("--no-{suffix}")),
            "{value}"
        );
    }
    let without = template(cp, "taskgate", "team-x", &["--set", "rights.admissionPolicies=false"]).await?;
    ensure!(!without.contains("ValidatingAdmissionPolicy"), "they are still there");
    let hosts = template(
        cp,
        "taskgate",
        "team-x",
        &["--set", "sources.hosts={ghe.corp,other.corp:8443}"],
    )
    .await?;
    ensure!(hosts.contains("--source-hosts=ghe.corp,other.corp:8443"), "{hosts}");
    Ok(())
}

/// Every document of a rendered installation.
fn documents(rendered: &str) -> anyhow::Result<Vec<Value>> {
    let parts = rendered.split("\n---").map(|part| part.trim_start_matches("---"));
    let parts = parts.filter(|part| {
        part.lines()
            .any(|line| !line.trim().is_empty() && !line.starts_with('#'))
    });
    parts
        .map(|part| serde_saphyr::from_str(part).with_context(|| part.to_owned()))
        .collect()
}
