//! Each fault in an installation that is otherwise healthy, and the finding that reports it.

use std::{collections::HashSet, sync::LazyLock};

use clap::ValueEnum as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use taskgate_api::{
    GROUP, VERSION, kelos, kelos_fields::KelosField, kueue, switch::CONDITION, task_policy::TaskSelector,
};
use taskgate_certs::{Lifetimes, San, SecretData, issue_all};
use taskgate_webhook::{Registration, rules::CONFIGURATION};

use super::{namespace_for_probe, run};
use crate::{
    commands::{
        doctor::{
            installation::Installation,
            probe::{ProbeResult, Probes},
            report::{DoctorCheck, DoctorFinding, Level},
            state::{
                ApiServer, CERT_MANAGER_CRD, Certificate, ClusterState, FOREMAN_CRD, KELOS_CRD, KELOS_DEPLOYMENT,
                KUEUE_CRD, OWN_CRDS, SPAWNER_CRD,
            },
        },
        snapshot::{Collection, ReadError, ReadResult, Snapshot},
    },
    defaults::{NAME, NAMESPACE},
    rights::review::permissions,
};

type Fault = (DoctorCheck, Level, &'static str, fn(&mut ClusterState));

fn secs(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(days * 24)
}

#[allow(clippy::unnecessary_wraps, reason = "as a snapshot has them")]
fn objects(objects: impl IntoIterator<Item = Value>) -> ReadResult {
    Ok(objects.into_iter().map(Into::into).collect())
}

/// An object of a collection.
fn object(state: &mut ClusterState, collection: Collection, index: usize) -> &mut Value {
    state.snapshot.object_mut(collection, index)
}

fn push(state: &mut ClusterState, collection: Collection, object: Value) {
    let mut all = state.snapshot.objects(collection).to_vec();
    all.push(object.into());
    state.snapshot.put(collection, Ok(all));
}

/// A webhook of taskgate.
fn webhook(state: &mut ClusterState, validating: bool, index: usize) -> &mut Value {
    let collection = if validating {
        Collection::ValidatingConfigurations
    } else {
        Collection::MutatingConfigurations
    };
    &mut object(state, collection, 0)["webhooks"][index]
}

fn each_webhook(state: &mut ClusterState, change: impl Fn(&mut Value)) {
    for collection in [Collection::MutatingConfigurations, Collection::ValidatingConfigurations] {
        let configuration = object(state, collection, 0);
        configuration["webhooks"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .for_each(&change);
    }
}

fn set_policies(state: &mut ClusterState, policies: &[(&str, Value)]) {
    let policies = policies.iter().map(|(name, spec)| policy("team", name, spec));
    state.snapshot.put(Collection::Policies, objects(policies));
}

/// The findings that are not ok.
fn bad(state: &ClusterState) -> Vec<DoctorFinding> {
    let mut found = run(state);
    found.retain(|finding| finding.level != Level::Ok);
    found
}

fn refused() -> ReadError {
    ReadError::Refused("User \"ann\" cannot get it".to_owned())
}

#[test]
fn a_healthy_installation_has_no_bad_finding() {
    assert_eq!(bad(&healthy()), []);
    let found = run(&healthy());
    let is_kelos = |finding: &DoctorFinding| finding.message.starts_with("Kelos v0.9.0, v1alpha2");
    assert!(found.iter().any(is_kelos), "{found:#?}");
}

/// Each fault is reported by its finding alone.
fn only(faults: &[Fault]) {
    let mut wrong = Vec::new();
    for (check, level, words, plant) in faults {
        let mut state = healthy();
        plant(&mut state);
        let found = bad(&state);
        let is_expected = |finding: &DoctorFinding| finding.level == *level && finding.message.contains(words);
        let nothing_else = found.iter().all(|finding| finding.check == *check);
        let advised = found
            .iter()
            .all(|finding| finding.advice.as_ref().is_some_and(|advice| !advice.is_empty()));
        if !found.iter().any(is_expected) || !nothing_else || !advised {
            wrong.push((words, found));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn differences_of_clocks_are_reported() {
    only(&[
        (
            DoctorCheck::Clock,
            Level::Warning,
            "this machine is 90 s ahead of",
            |state| {
                state.server.clock = Some((now(), now() + secs(90)));
            },
        ),
        (
            DoctorCheck::Clock,
            Level::Warning,
            "this machine is 9 s behind",
            |state| {
                state.server.clock = Some((now(), now() - secs(9)));
            },
        ),
        (
            DoctorCheck::Clock,
            Level::Warning,
            "the clock of taskgate-1-7 is 97 s ahead",
            |state| {
                object(state, Collection::Lease, 0)["spec"]["renewTime"] = json!("2026-01-31T12:01:34Z");
            },
        ),
        (
            DoctorCheck::Clock,
            Level::Failure,
            "the clock of taskgate-2: it is 600 s ahead",
            |state| {
                let reason = "it is 600 s ahead of the API server's: this replica does not lead";
                state.unfit = vec![("taskgate-2".to_owned(), reason.to_owned())];
            },
        ),
    ]);
}

#[test]
fn faults_of_the_cluster_are_reported() {
    only(&[
        (DoctorCheck::ApiServer, Level::Failure, "v1.29.4 is too old", |state| {
            state.server.version = (1, 29, "v1.29.4".to_owned());
        }),
        (
            DoctorCheck::Kinds,
            Level::Failure,
            "workitems.taskgate.dev is not installed",
            |state| {
                state
                    .snapshot
                    .put(Collection::Crd("workitems.taskgate.dev"), Err(ReadError::Absent));
            },
        ),
        (
            DoctorCheck::Kinds,
            Level::Failure,
            "is not served in taskgate.dev/v1alpha1",
            |state| {
                let crd = object(state, Collection::Crd("taskpolicies.taskgate.dev"), 0);
                crd["spec"]["versions"][0]["served"] = json!(false);
            },
        ),
        (
            DoctorCheck::Kinds,
            Level::Failure,
            "is not served they collide",
            |state| {
                let crd = object(state, Collection::Crd("taskpolicies.taskgate.dev"), 0);
                crd["status"]["conditions"] =
                    json!([{"type": "NamesAccepted", "status": "False", "message": "they collide"}]);
            },
        ),
        (
            DoctorCheck::Kinds,
            Level::Warning,
            "is not that of this release: versions[0].schema",
            |state| {
                let crd = object(state, Collection::Crd("taskpolicies.taskgate.dev"), 0);
                let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
                schema["properties"]["spec"]["properties"]
                    .as_object_mut()
                    .unwrap()
                    .remove("retry");
            },
        ),
        (
            DoctorCheck::Kelos,
            Level::Failure,
            "kelos.dev is served in v2 only",
            |state| {
                state
                    .groups
                    .as_mut()
                    .unwrap()
                    .insert("kelos.dev".to_owned(), vec!["v2".to_owned()]);
            },
        ),
        (
            DoctorCheck::Kelos,
            Level::Warning,
            "neither Kelos nor Foreman",
            |state| {
                state.groups.as_mut().unwrap().remove("kelos.dev");
            },
        ),
        (
            DoctorCheck::CertManager,
            Level::Failure,
            "not installed, although",
            |state| {
                object(state, Collection::MutatingConfigurations, 0)["metadata"]["annotations"] =
                    json!({"cert-manager.io/inject-ca-from": "taskgate-system/taskgate"});
            },
        ),
    ]);
}

/// A CRD of TaskSpawners without the fields, and the same with one of them.
fn spawner_crds() -> [Value; 2] {
    let template = json!({"type": "object", "properties": {}});
    let spec = json!({"type": "object", "properties": {"taskTemplate": template}});
    let schema =
        json!({"type": "object", "properties": {"spec": spec, "status": {"type": "object", "properties": {}}}});
    let plain = json!({
        "metadata": {"name": SPAWNER_CRD},
        "spec": {"versions": [{"name": "v1alpha2", "schema": {"openAPIV3Schema": schema}}]},
    });
    let mut extended = plain.clone();
    let schema = &mut extended["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"]["properties"]["failurePolicy"] = KelosField::FailurePolicy.schema();
    [plain, extended]
}

#[test]
fn schemas_of_kelos_that_are_not_as_the_setting_says_are_reported() {
    only(&[
        (
            DoctorCheck::KelosFields,
            Level::Failure,
            "lack fields although",
            |state| {
                let [plain, _] = spawner_crds();
                state.snapshot.put(Collection::KelosFields, objects([json!({})]));
                state.snapshot.put(Collection::Crd(SPAWNER_CRD), objects([plain]));
            },
        ),
        (
            DoctorCheck::KelosFields,
            Level::Warning,
            "which are not enabled",
            |state| {
                let [_, extended] = spawner_crds();
                state.snapshot.put(Collection::Crd(SPAWNER_CRD), objects([extended]));
            },
        ),
    ]);
}

#[test]
fn faults_of_the_registration_are_reported() {
    only(&[
        (
            DoctorCheck::Registration,
            Level::Failure,
            "there is no MutatingWebhookConfiguration",
            |state| {
                let objects = state.snapshot.objects(Collection::MutatingConfigurations)[1..].to_vec();
                state.snapshot.put(Collection::MutatingConfigurations, Ok(objects));
            },
        ),
        (
            DoctorCheck::Registration,
            Level::Failure,
            "there is no webhook validate.policies.taskgate.dev",
            |state| {
                let found = &mut object(state, Collection::ValidatingConfigurations, 0)["webhooks"];
                found
                    .as_array_mut()
                    .unwrap()
                    .retain(|webhook| webhook["name"] != "validate.policies.taskgate.dev");
            },
        ),
        (
            DoctorCheck::Registration,
            Level::Failure,
            "not as generated: rules[0].operations",
            |state| {
                webhook(state, false, 1)["rules"][0]["operations"] = json!(["CREATE"]);
            },
        ),
        (
            DoctorCheck::Registration,
            Level::Failure,
            "matchConditions[1].expression",
            |state| {
                webhook(state, false, 1)["matchConditions"][1]["expression"] = json!("true");
            },
        ),
        (
            DoctorCheck::Registration,
            Level::Failure,
            "clientConfig.service.path",
            |state| {
                webhook(state, true, 0)["clientConfig"]["service"]["path"] = json!("/");
            },
        ),
        (
            DoctorCheck::Registration,
            Level::Warning,
            "selects other objects than generated: objectSelector",
            |state| {
                webhook(state, false, 0)["objectSelector"] = json!({"matchLabels": {"team": "blue"}});
            },
        ),
        (
            DoctorCheck::Registration,
            Level::Warning,
            "timeoutSeconds is 30, not 2",
            |state| {
                webhook(state, false, 1)["timeoutSeconds"] = json!(30);
            },
        ),
        (
            DoctorCheck::Registration,
            Level::Warning,
            "failurePolicy is \"Ignore\", not \"Fail\"",
            |state| {
                each_webhook(state, |webhook| {
                    if webhook["name"] == "validate.policies.taskgate.dev" {
                        webhook["failurePolicy"] = json!("Ignore");
                    }
                });
            },
        ),
        (
            DoctorCheck::Registration,
            Level::Warning,
            "knows no webhook old.taskgate.dev",
            |state| {
                let mut old = webhook(state, true, 0).clone();
                old["name"] = json!("old.taskgate.dev");
                object(state, Collection::ValidatingConfigurations, 0)["webhooks"]
                    .as_array_mut()
                    .unwrap()
                    .push(old);
            },
        ),
    ]);
}

#[test]
fn faults_around_the_registration_are_reported() {
    only(&[
        (
            DoctorCheck::Registration,
            Level::Failure,
            "there is no Service taskgate-system/taskgate",
            |state| {
                state.snapshot.put(Collection::Service, Err(ReadError::Absent));
            },
        ),
        (DoctorCheck::Registration, Level::Failure, "has no port 443", |state| {
            state.snapshot.put(
                Collection::Service,
                objects([json!({"spec": {"ports": [{"port": 8443}]}})]),
            );
        }),
        (
            DoctorCheck::Neighbours,
            Level::Failure,
            "old leads to taskgate as well",
            |state| {
                let mut old = object(state, Collection::ValidatingConfigurations, 0).clone();
                old["metadata"]["name"] = json!("old");
                push(state, Collection::ValidatingConfigurations, old);
            },
        ),
        (
            DoctorCheck::Neighbours,
            Level::Warning,
            "guard is about taskgate.dev too",
            |state| {
                let rules = json!([{"apiGroups": ["taskgate.dev"], "resources": ["*"]}]);
                let guard = json!({"metadata": {"name": "guard"}, "webhooks": [{"name": "g", "rules": rules}]});
                push(state, Collection::ValidatingConfigurations, guard);
            },
        ),
        (
            DoctorCheck::Order,
            Level::Failure,
            "Kueue's a-kueue runs before",
            |state| {
                object(state, Collection::MutatingConfigurations, 1)["metadata"]["name"] = json!("a-kueue");
            },
        ),
        (
            DoctorCheck::Switch,
            Level::Failure,
            "disabled since 2026-01-31T11:00:00Z by ann: incident",
            |state| {
                let data = json!({"since": "2026-01-31T11:00:00Z", "by": "ann", "reason": "incident"});
                state
                    .snapshot
                    .put(Collection::DisableSwitch, objects([json!({"data": data})]));
                state.probes.validating = ProbeResult::NotCalled;
            },
        ),
        (
            DoctorCheck::Switch,
            Level::Failure,
            "12 webhooks are off, although taskgate is not disabled",
            |state| {
                each_webhook(state, |webhook| {
                    let off = json!({"name": CONDITION, "expression": "false"});
                    match webhook["matchConditions"].as_array_mut() {
                        Some(conditions) => conditions.push(off),
                        None => webhook["matchConditions"] = json!([off]),
                    }
                });
            },
        ),
        (
            DoctorCheck::Answers,
            Level::Failure,
            "does not ask taskgate about a policy",
            |state| {
                state.probes.validating = ProbeResult::NotCalled;
            },
        ),
        (
            DoctorCheck::Answers,
            Level::Failure,
            "failed calling webhook",
            |state| {
                let why = "failed calling webhook \"validate.policies.taskgate.dev\": connection refused";
                state.probes.validating = ProbeResult::CallFailed(why.to_owned());
            },
        ),
        (
            DoctorCheck::Answers,
            Level::Failure,
            "does not ask taskgate about a Task in team",
            |state| {
                state.probes.mutating = Some(("team".to_owned(), ProbeResult::NotCalled));
            },
        ),
        (DoctorCheck::Answers, Level::Warning, "could not be checked", |state| {
            state.probes.validating = ProbeResult::Refused("forbidden".to_owned());
        }),
    ]);
}

#[test]
fn faults_of_the_certificate_are_reported() {
    only(&[
        (
            DoctorCheck::Certificate,
            Level::Failure,
            "there is no Secret taskgate-system/",
            |state| {
                state.certificate = Err(ReadError::Absent);
            },
        ),
        (
            DoctorCheck::Certificate,
            Level::Failure,
            "there is no certificate in Secret",
            |state| {
                state.certificate.as_mut().unwrap().chain = None;
            },
        ),
        (
            DoctorCheck::Certificate,
            Level::Failure,
            "the certificate in taskgate-serving-cert ends in 19 days",
            |state| {
                state.now = now() + days(70);
                renew_now(state);
            },
        ),
    ]);
    let report = |plant: fn(&mut ClusterState)| {
        let mut state = healthy();
        plant(&mut state);
        let found = bad(&state).into_iter();
        found
            .map(|finding| format!("{}: {}", finding.check.name(), finding.message))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let expired = report(|state| {
        state.now = now() + days(100);
        renew_now(state);
    });
    assert!(
        expired.contains("certificate: the certificate in taskgate-serving-cert expired 11 days ago"),
        "{expired}"
    );
    assert!(
        expired.contains("ca-bundle: the caBundle of mutate.tasks.taskgate.dev"),
        "{expired}"
    );
    let early = report(|state| {
        state.now = now() - days(2);
        renew_now(state);
    });
    assert!(
        early.contains("the certificate in taskgate-serving-cert is valid from 2026-01-30"),
        "{early}"
    );
    let renamed = report(|state| state.installation.namespace = "elsewhere".to_owned());
    assert!(
        renamed.contains("is not issued for taskgate.elsewhere.svc"),
        "{renamed}"
    );
    let foreign = report(|state| {
        let bundle = json!(ByteString(issued(now()).ca_crt.unwrap()));
        webhook(state, true, 2)["clientConfig"]["caBundle"] = bundle;
        let key = "k:{\"name\":\"validate.policies.taskgate.dev\"}";
        let fields = json!({"f:webhooks": {key: {"f:clientConfig": {"f:caBundle": {}}}}});
        object(state, Collection::ValidatingConfigurations, 0)["metadata"]["managedFields"] =
            json!([{"manager": "argocd", "fieldsV1": fields}]);
    });
    assert_eq!(
        foreign,
        "ca-bundle: the caBundle of validate.policies.taskgate.dev does not lead to the certificate; argocd \
         (admission.taskgate.dev) has written it"
    );
    let without = report(|state| webhook(state, false, 0)["clientConfig"]["caBundle"] = Value::Null);
    assert_eq!(
        without,
        "ca-bundle: mutate.tasks.taskgate.dev has no caBundle: the API server trusts no certificate"
    );
}

/// Lets the leader renew its Lease now.
fn renew_now(state: &mut ClusterState) {
    let time = json!(state.now.strftime("%FT%TZ").to_string());
    state.server.clock = Some((state.now, state.now));
    let lease = object(state, Collection::Lease, 0);
    lease["spec"]["renewTime"] = time.clone();
    lease["metadata"]["managedFields"][0]["time"] = time;
}

#[test]
fn faults_of_the_replicas_are_reported() {
    only(&[
        (
            DoctorCheck::Replicas,
            Level::Failure,
            "there is no Deployment taskgate-system/taskgate",
            |state| {
                state.snapshot.put(Collection::Deployment, Err(ReadError::Absent));
                state.snapshot.put(Collection::Pods, Err(ReadError::Absent));
            },
        ),
        (DoctorCheck::Replicas, Level::Failure, "0 of 2 ready: quota", |state| {
            let condition = json!({"type": "ReplicaFailure", "status": "True", "message": "quota"});
            object(state, Collection::Deployment, 0)["status"] = json!({"conditions": [condition]});
        }),
        (DoctorCheck::Replicas, Level::Warning, "1 of 2 ready", |state| {
            object(state, Collection::Deployment, 0)["status"]["readyReplicas"] = json!(1);
        }),
        (
            DoctorCheck::Versions,
            Level::Warning,
            "taskgate:0.0.1 and ghcr.io/taskgate/taskgate",
            |state| {
                object(state, Collection::Pods, 0)["spec"]["containers"][0]["image"] =
                    json!("ghcr.io/old/taskgate:0.0.1");
            },
        ),
        (
            DoctorCheck::Versions,
            Level::Warning,
            "the pods run 9.0.0, this command is",
            |state| {
                for index in 0..2 {
                    object(state, Collection::Pods, index)["spec"]["containers"][0]["image"] =
                        json!("ghcr.io/taskgate/taskgate:9.0.0");
                }
            },
        ),
        (
            DoctorCheck::Versions,
            Level::Warning,
            "are not understood: unexpected",
            |state| {
                state.installation.problem = Some("unexpected argument '--new'".to_owned());
            },
        ),
        (
            DoctorCheck::Leader,
            Level::Failure,
            "there is no Lease taskgate-system/taskgate-controller",
            |state| {
                state.snapshot.put(Collection::Lease, Err(ReadError::Absent));
            },
        ),
        (DoctorCheck::Leader, Level::Failure, "has no holder", |state| {
            state.snapshot.put(Collection::Lease, objects([json!({})]));
        }),
        (
            DoctorCheck::Leader,
            Level::Failure,
            "renewed Lease taskgate-system/taskgate-controller 60 s ago",
            |state| {
                let lease = object(state, Collection::Lease, 0);
                lease["spec"]["renewTime"] = json!("2026-01-31T11:59:00Z");
                lease["metadata"]["managedFields"][0]["time"] = json!("2026-01-31T11:59:00Z");
            },
        ),
        (
            DoctorCheck::Leader,
            Level::Warning,
            "mallory-1 leads, and is none of the pods",
            |state| {
                object(state, Collection::Lease, 0)["spec"]["holderIdentity"] = json!("mallory-1");
            },
        ),
        (
            DoctorCheck::Rights,
            Level::Failure,
            "lacks a right: finalizer, TTL",
            |state| {
                let names = &state.installation.names;
                let asked = permissions(names).into_iter();
                let denied = asked.filter(|asked| asked.resource == "tasks" && asked.verb == "patch");
                state.denied = Ok(denied.collect());
            },
        ),
        (DoctorCheck::Rights, Level::Warning, "cannot be read: User", |state| {
            state.denied = Err(refused());
        }),
    ]);
}

#[test]
fn faults_of_namespaces_are_reported() {
    only(&[
        (
            DoctorCheck::Namespaces,
            Level::Warning,
            "its label opts it out: TaskPolicy/agents",
            |state| {
                object(state, Collection::Namespaces, 3)["metadata"]["labels"]["taskgate.dev/admission"] =
                    json!("disabled");
            },
        ),
        (
            DoctorCheck::Namespaces,
            Level::Warning,
            "taskgate.dev/admission=off, which means nothing",
            |state| {
                object(state, Collection::Namespaces, 0)["metadata"]["labels"]["taskgate.dev/admission"] = json!("off");
            },
        ),
        (
            DoctorCheck::Namespaces,
            Level::Warning,
            "kube-system is governed, taskgate never touches it: TaskSpawner/own",
            |state| {
                push(state, Collection::Spawners, spawner("kube-system", "own"));
                state.snapshot.put(
                    Collection::ClusterPolicies,
                    objects([policy("", "all", &json!({"cancellationPolicy": {}}))]),
                );
            },
        ),
    ]);
}

#[test]
fn faults_of_policies_are_reported() {
    only(&[
        (DoctorCheck::Policies, Level::Warning, "there is none", |state| {
            state.snapshot.put(Collection::Policies, objects([]));
        }),
        (
            DoctorCheck::Policies,
            Level::Failure,
            "TaskPolicy team/agents is ignored: spec.metadata.labels[a]",
            |state| {
                set_policies(state, &[("agents", json!({"metadata": {"labels": {"a": "{{ b"}}}))]);
            },
        ),
        (
            DoctorCheck::Policies,
            Level::Failure,
            "TaskPolicy team/agents: ignored by the pods",
            |state| {
                let condition = json!({"type": "Accepted", "status": "False", "message": "ignored by the pods"});
                object(state, Collection::Policies, 0)["status"]["conditions"] = json!([condition]);
            },
        ),
        (
            DoctorCheck::Policies,
            Level::Warning,
            "has not been reconciled",
            |state| {
                object(state, Collection::Policies, 0)["metadata"]["generation"] = json!(2);
            },
        ),
        (
            DoctorCheck::Policies,
            Level::Warning,
            "TaskPolicy team/agents selects none of the 1 Tasks",
            |state| {
                let selector = TaskSelector {
                    spawner_names: vec!["fixre".to_owned()],
                    ..TaskSelector::default()
                };
                set_policies(
                    state,
                    &[(
                        "agents",
                        json!({"selector": selector, "failurePolicy": {"maxRetriesPerItem": 3}}),
                    )],
                );
            },
        ),
        (
            DoctorCheck::Policies,
            Level::Warning,
            "ClusterTaskPolicy all selects no namespace",
            |state| {
                let spec = json!({"namespaceSelector": {"matchLabels": {"team": "blue"}}, "failurePolicy": {}});
                state
                    .snapshot
                    .put(Collection::ClusterPolicies, objects([policy("", "all", &spec)]));
            },
        ),
        (
            DoctorCheck::Policies,
            Level::Warning,
            "TaskPolicy team/weak has no effect: TaskPolicy/agents overrules it",
            |state| {
                let failure = |limit: u32| json!({"failurePolicy": {"maxRetriesPerItem": limit}, "priority": limit});
                set_policies(state, &[("agents", failure(3)), ("weak", failure(1))]);
            },
        ),
        (
            DoctorCheck::Policies,
            Level::Warning,
            "TaskPolicy/a and TaskPolicy/b disagree on failurePolicy of team/TaskSpawner/fixer",
            |state| {
                let spec = |limit: u32, key: &str| json!({"failurePolicy": {"maxRetriesPerItem": limit}, "metadata": {"labels": {key: "x"}}});
                set_policies(state, &[("a", spec(3, "a")), ("b", spec(1, "b"))]);
            },
        ),
        (DoctorCheck::Policies, Level::Warning, "has no section", |state| {
            set_policies(state, &[("agents", json!({}))]);
        }),
    ]);
}

#[test]
fn faults_of_queues_are_reported() {
    only(&[
        (
            DoctorCheck::Queues,
            Level::Failure,
            "TaskPolicy team/agents names a queue, and Kueue is not installed",
            |state| {
                state.groups.as_mut().unwrap().remove("kueue.x-k8s.io");
            },
        ),
        (
            DoctorCheck::Queues,
            Level::Failure,
            "LocalQueue team/small, which TaskPolicy team/agents names, does not exist",
            |state| {
                state.snapshot.put(Collection::LocalQueues, objects([]));
            },
        ),
        (
            DoctorCheck::Queues,
            Level::Failure,
            "is not active: no ClusterQueue",
            |state| {
                let condition = json!({"type": "Active", "status": "False", "message": "no ClusterQueue"});
                object(state, Collection::LocalQueues, 0)["status"]["conditions"] = json!([condition]);
            },
        ),
        (
            DoctorCheck::Queues,
            Level::Warning,
            "is stopped by its stopPolicy",
            |state| {
                object(state, Collection::LocalQueues, 0)["spec"]["stopPolicy"] = json!("Hold");
            },
        ),
        (
            DoctorCheck::Queues,
            Level::Failure,
            "Kueue does not manage namespace team",
            |state| {
                let config = "managedJobsNamespaceSelector: {matchLabels: {queues: 'yes'}}";
                let map = json!({"data": {"controller_manager_config.yaml": config}});
                state.snapshot.put(Collection::KueueConfig, objects([map]));
            },
        ),
        (
            DoctorCheck::Queues,
            Level::Warning,
            "WorkloadPriorityClass high, which TaskPolicy team/agents names",
            |state| {
                set_policies(
                    state,
                    &[("agents", json!({"queueName": "small", "queuePriorityClass": "high"}))],
                );
            },
        ),
        (DoctorCheck::Queues, Level::Warning, "does not exist", |state| {
            set_policies(state, &[("agents", json!({"mode": "Observe", "queueName": "large"}))]);
        }),
    ]);
}

#[test]
fn what_may_not_be_read_is_only_a_warning() {
    let mut state = healthy();
    let known: Vec<_> = state.snapshot.collections().collect();
    for collection in known {
        state.snapshot.put(collection, Err(refused()));
    }
    (state.certificate, state.denied, state.groups) = (Err(refused()), Err(refused()), Err(refused()));
    let found = bad(&state);
    assert!(
        found.iter().all(|finding| finding.level == Level::Warning),
        "{found:#?}"
    );
    assert!(found.len() > 8, "{found:#?}");
}

#[test]
fn without_an_installation_everything_is_reported_and_nothing_panics() {
    let mut state = healthy();
    let known: Vec<_> = state.snapshot.collections().collect();
    for collection in known {
        state.snapshot.put(collection, Err(ReadError::Absent));
    }
    for collection in [
        Collection::MutatingConfigurations,
        Collection::ValidatingConfigurations,
        Collection::Namespaces,
    ] {
        state.snapshot.put(collection, objects([]));
    }
    state.certificate = Err(ReadError::Absent);
    state.probes.mutating = None;
    let failed: Vec<_> = bad(&state)
        .into_iter()
        .filter(|finding| finding.level == Level::Failure)
        .collect();
    for check in [
        DoctorCheck::Kinds,
        DoctorCheck::Registration,
        DoctorCheck::Certificate,
        DoctorCheck::Replicas,
        DoctorCheck::Leader,
    ] {
        assert!(failed.iter().any(|finding| finding.check == check), "{failed:#?}");
    }
}

#[test]
fn the_probe_uses_a_namespace_that_is_not_excluded() {
    assert_eq!(namespace_for_probe(&healthy()).as_deref(), Some("team"));
    let mut state = healthy();
    object(&mut state, Collection::Namespaces, 3)["metadata"]["labels"]["taskgate.dev/admission"] = json!("disabled");
    assert_eq!(namespace_for_probe(&state).as_deref(), Some("default"));
    state
        .snapshot
        .put(Collection::Namespaces, objects([namespace("kube-system")]));
    assert_eq!(namespace_for_probe(&state), None);
    state = healthy();
    state.snapshot.put(Collection::Crd(KELOS_CRD), Err(ReadError::Absent));
    assert_eq!(namespace_for_probe(&state), None);
}

#[test]
fn tasks_and_workloads_are_selected_as_spawners_are() {
    let mut state = healthy();
    state.snapshot.put(Collection::Spawners, objects([]));
    let selector = json!({"selector": {"taskTypes": ["codex"]}, "failurePolicy": {"maxRetriesPerItem": 3}});
    set_policies(&mut state, &[("agents", selector)]);
    state.snapshot.set_partial(Collection::Tasks);
    let task = |kind: &str| json!({"metadata": {"namespace": "team", "name": "a"}, "spec": {"type": kind}});
    state.snapshot.put(Collection::Tasks, objects([task("codex")]));
    assert_eq!(bad(&state), []);
    state.snapshot.put(Collection::Tasks, objects([task("gemini")]));
    let [finding] = &bad(&state)[..] else {
        panic!("{:#?}", bad(&state))
    };
    assert!(
        finding
            .message
            .contains("selects none of the 1 Tasks, Workloads and spawners that were read"),
        "{finding:?}"
    );
}

#[test]
fn every_check_is_in_the_documentation() {
    let page = include_str!("../../../../../docs/doctor.md");
    for check in DoctorCheck::value_variants() {
        assert!(page.contains(&format!("| `{}` |", check.name())), "{}", check.name());
    }
}

/// The time of the checks.
fn now() -> Timestamp {
    "2026-01-31T12:00:00Z".parse().unwrap()
}

/// Certificates that are a day old.
static ISSUED: LazyLock<SecretData> = LazyLock::new(|| issued(now() - SignedDuration::from_hours(24)));

/// Certificates that were issued at `time`.
fn issued(time: Timestamp) -> SecretData {
    let names = San::of_service(NAME, NAMESPACE).unwrap();
    issue_all(&names, Lifetimes::default(), time).unwrap()
}

fn namespace(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}})
}

fn policy(namespace: &str, name: &str, spec: &Value) -> Value {
    let accepted = json!({"observedGeneration": 1, "conditions": [{"type": "Accepted", "status": "True"}]});
    json!({"metadata": {"namespace": namespace, "name": name, "generation": 1}, "spec": spec, "status": accepted})
}

fn spawner(namespace: &str, name: &str) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"taskTemplate": {"worker": {"type": "claude-code"}}}})
}

fn configuration(webhooks: &Value, bundle: &[u8]) -> Value {
    let mut configuration = json!({"metadata": {"name": CONFIGURATION}, "webhooks": webhooks});
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

fn crds(snapshot: &mut Snapshot) {
    let established = json!({"conditions": [{"type": "Established", "status": "True"}]});
    for crd in taskgate_api::crds::all() {
        let name = crd.metadata.name.clone().unwrap();
        let name = OWN_CRDS.into_iter().find(|own| *own == name).unwrap();
        let mut crd = serde_json::to_value(crd).unwrap();
        crd["status"] = established.clone();
        crd["spec"]["conversion"] = json!({"strategy": "None"});
        snapshot.put(Collection::Crd(name), objects([crd]));
    }
    for name in [KELOS_CRD, KUEUE_CRD] {
        snapshot.put(Collection::Crd(name), objects([json!({"metadata": {"name": name}})]));
    }
    for name in [FOREMAN_CRD, CERT_MANAGER_CRD] {
        snapshot.put(Collection::Crd(name), Err(ReadError::Absent));
    }
}

fn deployment(image: &str) -> Value {
    json!({
        "spec": {"replicas": 2, "template": {"spec": {"containers": [{"image": image}]}}},
        "status": {"readyReplicas": 2},
    })
}

fn healthy_snapshot(image: &str, bundle: &[u8]) -> Snapshot {
    let (mutating, validating) = Registration::of_service(NAME, NAMESPACE).configurations();
    let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"image": image}]}});
    let renewed = (now() - secs(3)).strftime("%FT%TZ").to_string();
    let policy = policy(
        "team",
        "agents",
        &json!({"failurePolicy": {"maxRetriesPerItem": 3}, "queueName": "small"}),
    );
    let mut snapshot = Snapshot::default();
    crds(&mut snapshot);
    for (collection, found) in [
        (
            Collection::MutatingConfigurations,
            vec![
                configuration(&json!(mutating.webhooks), bundle),
                other("kueue-mutating-webhook-configuration", "/mutate-batch-v1-job"),
            ],
        ),
        (
            Collection::ValidatingConfigurations,
            vec![configuration(&json!(validating.webhooks), bundle)],
        ),
        (Collection::Service, vec![json!({"spec": {"ports": [{"port": 443}]}})]),
        (Collection::Deployment, vec![deployment(image)]),
        (Collection::Pods, vec![pod("taskgate-1"), pod("taskgate-2")]),
        (
            Collection::Lease,
            vec![json!({
                "metadata": {"managedFields": [{"time": renewed, "fieldsV1": {"f:spec": {"f:renewTime": {}}}}]},
                "spec": {"holderIdentity": "taskgate-1-7", "renewTime": renewed, "leaseDurationSeconds": 15},
            })],
        ),
        (
            Collection::Deployments(KELOS_DEPLOYMENT),
            vec![deployment("ghcr.io/kelos-dev/kelos-controller:v0.9.0")],
        ),
        (
            Collection::Namespaces,
            ["default", "kube-system", NAMESPACE, "team"].map(namespace).to_vec(),
        ),
        (Collection::Policies, vec![policy]),
        (Collection::ClusterPolicies, Vec::new()),
        (Collection::Spawners, vec![spawner("team", "fixer")]),
        (Collection::Tasks, Vec::new()),
        (
            Collection::LocalQueues,
            vec![json!({
                "metadata": {"namespace": "team", "name": "small"}, "spec": {"clusterQueue": "all"},
                "status": {"conditions": [{"type": "Active", "status": "True"}]},
            })],
        ),
        (Collection::PriorityClasses, Vec::new()),
    ] {
        snapshot.put(collection, objects(found));
    }
    for absent in [
        Collection::DisableSwitch,
        Collection::KelosFields,
        Collection::Crd(SPAWNER_CRD),
        Collection::Workloads,
        Collection::KueueConfig,
    ] {
        snapshot.put(absent, Err(ReadError::Absent));
    }
    snapshot
}

/// Two replicas, one policy with a queue, a spawner that it selects.
fn healthy() -> ClusterState {
    let secret = ISSUED.clone();
    let image = format!("ghcr.io/taskgate/taskgate:{}", env!("CARGO_PKG_VERSION"));
    let snapshot = healthy_snapshot(&image, secret.ca_crt.as_ref().unwrap());
    let groups = [(GROUP, VERSION), (kelos::GROUP, "v1alpha2"), (kueue::GROUP, "v1beta2")];
    ClusterState {
        now: now(),
        server: ApiServer {
            version: (1, 36, "v1.36.3".to_owned()),
            clock: Some((now(), now())),
        },
        installation: Installation::of(NAMESPACE, NAME, CONFIGURATION, None).unwrap(),
        groups: Ok(groups
            .map(|(group, version)| (group.to_owned(), vec![version.to_owned()]))
            .into()),
        snapshot,
        certificate: Ok(Certificate {
            chain: secret.tls_crt,
            authorities: secret.ca_crt,
        }),
        denied: Ok(HashSet::new()),
        probes: Probes {
            validating: ProbeResult::Answered,
            mutating: Some(("team".to_owned(), ProbeResult::Answered)),
        },
        unfit: Vec::new(),
    }
}
