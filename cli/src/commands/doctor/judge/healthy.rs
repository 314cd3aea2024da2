//! The facts of an installation in which everything is well: what the tables of faults begin with.

use std::{
    collections::{BTreeMap, HashSet},
    sync::LazyLock,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use taskgate_api::{GROUP, VERSION, kelos, kueue, kueue::ConfigRef};
use taskgate_certs::{Lifetimes, San, SecretData, issue_all};
use taskgate_webhook::Registration;

use super::{CERT_MANAGER_CRD, FOREMAN_CRD, KELOS_CRD, KUEUE_CRD};
use crate::{
    args::{CertMode, NAME, NAMESPACE},
    commands::doctor::facts::{Answer, Certificate, Facts, Installation, Kueue, Page, Probes, Server, Unseen},
    manifests::usual_names,
};

/// When it is.
pub(super) fn now() -> Timestamp {
    "2026-01-31T12:00:00Z".parse().unwrap()
}

/// Certificates that are a day old.
static ISSUED: LazyLock<SecretData> = LazyLock::new(|| issued(now() - SignedDuration::from_hours(24)));

/// Certificates that were issued at `time`.
pub(super) fn issued(time: Timestamp) -> SecretData {
    let names = San::of_service(NAME, NAMESPACE).unwrap();
    issue_all(&names, Lifetimes::default(), time).unwrap()
}

pub(super) fn namespace(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}})
}

pub(super) fn policy(namespace: &str, name: &str, spec: &Value) -> Value {
    let accepted = json!({"observedGeneration": 1, "conditions": [{"type": "Accepted", "status": "True"}]});
    json!({"metadata": {"namespace": namespace, "name": name, "generation": 1}, "spec": spec, "status": accepted})
}

pub(super) fn spawner(namespace: &str, name: &str) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"taskTemplate": {"worker": {"type": "claude-code"}}}})
}

fn configuration(webhooks: &Value, bundle: &[u8]) -> Value {
    let mut configuration = json!({"metadata": {"name": taskgate_webhook::rules::CONFIGURATION}, "webhooks": webhooks});
    for webhook in configuration["webhooks"].as_array_mut().unwrap() {
        webhook["clientConfig"]["caBundle"] = json!(ByteString(bundle.to_vec()));
        // As the API server fills it in.
        if webhook["objectSelector"].is_null() {
            webhook["objectSelector"] = json!({});
        }
    }
    configuration
}

fn other(name: &str, path: &str) -> Value {
    let service = json!({"name": "webhook-service", "namespace": "others", "path": path});
    let rules =
        json!([{"apiGroups": ["batch"], "apiVersions": ["v1"], "resources": ["jobs"], "operations": ["CREATE"]}]);
    json!({"metadata": {"name": name}, "webhooks": [{"name": "one", "clientConfig": {"service": service}, "rules": rules}]})
}

fn crds() -> BTreeMap<String, Result<Value, Unseen>> {
    let established = json!({"conditions": [{"type": "Established", "status": "True"}]});
    let mut crds: BTreeMap<_, _> = taskgate_api::crds::all()
        .into_iter()
        .map(|crd| {
            let name = crd.metadata.name.clone().unwrap();
            let mut crd = serde_json::to_value(crd).unwrap();
            crd["status"] = established.clone();
            crd["spec"]["conversion"] = json!({"strategy": "None"});
            (name, Ok(crd))
        })
        .collect();
    for name in [KELOS_CRD, KUEUE_CRD] {
        crds.insert(name.to_owned(), Ok(json!({"metadata": {"name": name}})));
    }
    for name in [FOREMAN_CRD, CERT_MANAGER_CRD] {
        crds.insert(name.to_owned(), Err(Unseen::Absent));
    }
    crds
}

fn deployment(image: &str) -> Value {
    json!({
        "spec": {"replicas": 2, "template": {"spec": {"containers": [{"image": image}]}}},
        "status": {"readyReplicas": 2},
    })
}

/// Two replicas, one policy with a queue, a spawner that it selects.
pub(super) fn healthy() -> Facts {
    let secret = ISSUED.clone();
    let bundle = secret.ca_crt.clone().unwrap();
    let (mutating, validating) = Registration::of_service(NAME, NAMESPACE).configurations();
    let image = format!("ghcr.io/taskgate/taskgate:{}", env!("CARGO_PKG_VERSION"));
    let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"image": image}]}});
    let groups = [(GROUP, VERSION), (kelos::GROUP, "v1alpha2"), (kueue::GROUP, "v1beta2")];
    let second = |ago: i64| (now() - SignedDuration::from_secs(ago)).strftime("%FT%TZ").to_string();
    Facts {
        now: now(),
        server: Server {
            version: (1, 36, "v1.36.3".to_owned()),
            clock: Some((now(), now())),
        },
        installation: Installation {
            version: env!("CARGO_PKG_VERSION"),
            namespace: NAMESPACE.to_owned(),
            service: NAME.to_owned(),
            configuration: taskgate_webhook::rules::CONFIGURATION.to_owned(),
            account: NAME.to_owned(),
            secret: Some("taskgate-serving-cert".to_owned()),
            mode: CertMode::SelfSigned,
            elects: true,
            names: usual_names(),
            kueue: ConfigRef::default(),
            problem: None,
        },
        groups: Ok(groups
            .map(|(group, version)| (group.to_owned(), vec![version.to_owned()]))
            .into()),
        crds: crds(),
        mutating: Ok(vec![
            configuration(&json!(mutating.webhooks), &bundle),
            other("kueue-mutating-webhook-configuration", "/mutate-batch-v1-job"),
        ]),
        validating: Ok(vec![configuration(&json!(validating.webhooks), &bundle)]),
        service: Ok(json!({"spec": {"ports": [{"port": 443}]}})),
        certificate: Ok(Certificate {
            chain: secret.tls_crt,
            authorities: secret.ca_crt,
        }),
        switch: Err(Unseen::Absent),
        deployment: Ok(deployment(&image)),
        pods: Ok(vec![pod("taskgate-1"), pod("taskgate-2")]),
        lease: Ok(json!({
            "metadata": {"managedFields": [{"time": second(3), "fieldsV1": {"f:spec": {"f:renewTime": {}}}}]},
            "spec": {"holderIdentity": "taskgate-1-7", "renewTime": second(3), "leaseDurationSeconds": 15},
        })),
        denied: Ok(HashSet::new()),
        companions: BTreeMap::from([(
            super::companions::KELOS,
            Ok(vec![deployment("ghcr.io/kelos-dev/kelos-controller:v0.9.0")]),
        )]),
        namespaces: Ok(["default", "kube-system", NAMESPACE, "team"].map(namespace).to_vec()),
        policies: Ok(vec![policy(
            "team",
            "agents",
            &json!({"failurePolicy": {"maxRetriesPerItem": 3}, "queueName": "small"}),
        )]),
        cluster_policies: Ok(Vec::new()),
        spawners: Ok(vec![spawner("team", "fixer")]),
        tasks: Ok(Page::default()),
        workloads: Err(Unseen::Absent),
        kueue: Kueue {
            config: Err(Unseen::Absent),
            queues: Ok(vec![json!({
                "metadata": {"namespace": "team", "name": "small"}, "spec": {"clusterQueue": "all"},
                "status": {"conditions": [{"type": "Active", "status": "True"}]},
            })]),
            classes: Ok(Vec::new()),
        },
        probes: Probes {
            validating: Answer::Taskgate,
            mutating: Some(("team".to_owned(), Answer::Taskgate)),
        },
    }
}
