//! Each fault, planted into an installation that is well, and the line that tells of it.

use jiff::SignedDuration;
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use taskgate_api::{switch::CONDITION, task_policy::TaskSelector};

use super::{
    healthy::{healthy, issued, namespace, now, policy, spawner},
    judge, namespace_to_ask_in,
};
use crate::commands::doctor::{
    facts::{Answer, Facts, Page, Unseen},
    finding::{Check, Finding, Level},
};

type Fault = (Check, Level, &'static str, fn(&mut Facts));

fn secs(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(days * 24)
}

/// A webhook of ours.
fn webhook(facts: &mut Facts, validating: bool, index: usize) -> &mut Value {
    let found = if validating {
        &mut facts.validating
    } else {
        &mut facts.mutating
    };
    &mut found.as_mut().unwrap()[0]["webhooks"][index]
}

fn webhooks(facts: &mut Facts) -> impl Iterator<Item = &mut Value> {
    let found = facts
        .mutating
        .as_mut()
        .unwrap()
        .iter_mut()
        .chain(facts.validating.as_mut().unwrap());
    found
        .filter(|found| found["metadata"]["name"] == taskgate_webhook::rules::CONFIGURATION)
        .flat_map(|found| found["webhooks"].as_array_mut().unwrap())
}

fn set_policies(facts: &mut Facts, policies: &[(&str, Value)]) {
    let policies = policies.iter().map(|(name, spec)| policy("team", name, spec));
    facts.policies = Ok(policies.collect());
}

/// What is told, but for what is fine.
fn bad(facts: &Facts) -> Vec<Finding> {
    let mut found = judge(facts);
    found.retain(|finding| finding.level != Level::Ok);
    found
}

fn refused() -> Unseen {
    Unseen::Refused("User \"ann\" cannot get it".to_owned())
}

#[test]
fn nothing_is_wrong_with_what_is_well() {
    assert_eq!(bad(&healthy()), []);
    let told = judge(&healthy());
    assert!(
        told.iter()
            .any(|finding| finding.message.starts_with("Kelos v0.9.0, v1alpha2")),
        "{told:#?}"
    );
}

/// The fault alone is told, by the right line.
fn only(faults: &[Fault]) {
    let mut wrong = Vec::new();
    for (check, level, words, plant) in faults {
        let mut facts = healthy();
        plant(&mut facts);
        let found = bad(&facts);
        let tells = |finding: &Finding| finding.level == *level && finding.message.contains(words);
        let nothing_else = found.iter().all(|finding| finding.check == *check);
        let advised = found
            .iter()
            .all(|finding| finding.advice.as_ref().is_some_and(|advice| !advice.is_empty()));
        if !found.iter().any(tells) || !nothing_else || !advised {
            wrong.push((words, found));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn faults_of_the_cluster_are_told() {
    only(&[
        (Check::ApiServer, Level::Failure, "v1.29.4 is too old", |facts| {
            facts.server.version = (1, 29, "v1.29.4".to_owned());
        }),
        (Check::Clock, Level::Warning, "this machine is 90 s ahead of", |facts| {
            facts.server.clock = Some((now(), now() + secs(90)));
        }),
        (Check::Clock, Level::Warning, "this machine is 9 s behind", |facts| {
            facts.server.clock = Some((now(), now() - secs(9)));
        }),
        (
            Check::Clock,
            Level::Failure,
            "the clock of taskgate-1-7 is 97 s ahead",
            |facts| {
                facts.lease.as_mut().unwrap()["spec"]["renewTime"] = json!("2026-01-31T12:01:34Z");
            },
        ),
        (
            Check::Kinds,
            Level::Failure,
            "workitems.taskgate.dev is not installed",
            |facts| {
                facts
                    .crds
                    .insert("workitems.taskgate.dev".to_owned(), Err(Unseen::Absent));
            },
        ),
        (
            Check::Kinds,
            Level::Failure,
            "is not served in taskgate.dev/v1alpha1",
            |facts| {
                let crd = facts
                    .crds
                    .get_mut("taskpolicies.taskgate.dev")
                    .unwrap()
                    .as_mut()
                    .unwrap();
                crd["spec"]["versions"][0]["served"] = json!(false);
            },
        ),
        (Check::Kinds, Level::Failure, "is not served they collide", |facts| {
            let crd = facts
                .crds
                .get_mut("taskpolicies.taskgate.dev")
                .unwrap()
                .as_mut()
                .unwrap();
            crd["status"]["conditions"] =
                json!([{"type": "NamesAccepted", "status": "False", "message": "they collide"}]);
        }),
        (
            Check::Kinds,
            Level::Warning,
            "is not that of this release: versions[0].schema",
            |facts| {
                let crd = facts
                    .crds
                    .get_mut("taskpolicies.taskgate.dev")
                    .unwrap()
                    .as_mut()
                    .unwrap();
                let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
                schema["properties"]["spec"]["properties"]
                    .as_object_mut()
                    .unwrap()
                    .remove("retry");
            },
        ),
        (
            Check::Kelos,
            Level::Failure,
            "kelos.dev is served in v2 only",
            |facts| {
                facts
                    .groups
                    .as_mut()
                    .unwrap()
                    .insert("kelos.dev".to_owned(), vec!["v2".to_owned()]);
            },
        ),
        (Check::Kelos, Level::Warning, "neither Kelos nor Foreman", |facts| {
            facts.groups.as_mut().unwrap().remove("kelos.dev");
        }),
        (Check::CertManager, Level::Failure, "not installed, although", |facts| {
            facts.mutating.as_mut().unwrap()[0]["metadata"]["annotations"] =
                json!({"cert-manager.io/inject-ca-from": "taskgate-system/taskgate"});
        }),
    ]);
}

#[test]
fn faults_of_the_registration_are_told() {
    only(&[
        (
            Check::Registration,
            Level::Failure,
            "there is no MutatingWebhookConfiguration",
            |facts| {
                facts.mutating.as_mut().unwrap().remove(0);
            },
        ),
        (
            Check::Registration,
            Level::Failure,
            "there is no webhook validate.jobs.taskgate.dev",
            |facts| {
                let found = &mut facts.validating.as_mut().unwrap()[0]["webhooks"];
                found
                    .as_array_mut()
                    .unwrap()
                    .retain(|webhook| webhook["name"] != "validate.jobs.taskgate.dev");
            },
        ),
        (
            Check::Registration,
            Level::Failure,
            "not as it is generated: rules[0].operations",
            |facts| {
                webhook(facts, false, 0)["rules"][0]["operations"] = json!(["CREATE", "UPDATE"]);
            },
        ),
        (
            Check::Registration,
            Level::Failure,
            "matchConditions[1].expression",
            |facts| {
                webhook(facts, false, 1)["matchConditions"][1]["expression"] = json!("true");
            },
        ),
        (
            Check::Registration,
            Level::Failure,
            "clientConfig.service.path",
            |facts| {
                webhook(facts, true, 0)["clientConfig"]["service"]["path"] = json!("/");
            },
        ),
        (
            Check::Registration,
            Level::Warning,
            "sent other objects than it is meant for: objectSelector",
            |facts| {
                webhook(facts, false, 0)["objectSelector"] = json!({"matchLabels": {"team": "blue"}});
            },
        ),
        (
            Check::Registration,
            Level::Warning,
            "timeoutSeconds is 30, not 2",
            |facts| {
                webhook(facts, false, 1)["timeoutSeconds"] = json!(30);
            },
        ),
        (
            Check::Registration,
            Level::Warning,
            "failurePolicy is \"Ignore\", not \"Fail\"",
            |facts| {
                let found = webhooks(facts).find(|found| found["name"] == "validate.policies.taskgate.dev");
                found.unwrap()["failurePolicy"] = json!("Ignore");
            },
        ),
        (
            Check::Registration,
            Level::Warning,
            "knows no webhook old.taskgate.dev",
            |facts| {
                let mut old = webhook(facts, true, 0).clone();
                old["name"] = json!("old.taskgate.dev");
                facts.validating.as_mut().unwrap()[0]["webhooks"]
                    .as_array_mut()
                    .unwrap()
                    .push(old);
            },
        ),
    ]);
}

#[test]
fn faults_around_the_registration_are_told() {
    only(&[
        (
            Check::Registration,
            Level::Failure,
            "there is no Service taskgate-system/taskgate",
            |facts| {
                facts.service = Err(Unseen::Absent);
            },
        ),
        (Check::Registration, Level::Failure, "has no port 443", |facts| {
            facts.service = Ok(json!({"spec": {"ports": [{"port": 8443}]}}));
        }),
        (
            Check::Neighbours,
            Level::Failure,
            "old leads to taskgate as well",
            |facts| {
                let mut old = facts.validating.as_ref().unwrap()[0].clone();
                old["metadata"]["name"] = json!("old");
                facts.validating.as_mut().unwrap().push(old);
            },
        ),
        (
            Check::Neighbours,
            Level::Warning,
            "guard is about taskgate.dev too",
            |facts| {
                let rules = json!([{"apiGroups": ["taskgate.dev"], "resources": ["*"]}]);
                let guard = json!({"metadata": {"name": "guard"}, "webhooks": [{"name": "g", "rules": rules}]});
                facts.validating.as_mut().unwrap().push(guard);
            },
        ),
        (Check::Order, Level::Failure, "Kueue's a-kueue runs before", |facts| {
            facts.mutating.as_mut().unwrap()[1]["metadata"]["name"] = json!("a-kueue");
        }),
        (
            Check::Switch,
            Level::Failure,
            "disabled since 2026-01-31T11:00:00Z by ann: incident",
            |facts| {
                let data = json!({"since": "2026-01-31T11:00:00Z", "by": "ann", "reason": "incident"});
                facts.switch = Ok(json!({"data": data}));
                facts.probes.validating = Answer::Nobody;
            },
        ),
        (
            Check::Switch,
            Level::Failure,
            "10 webhooks are off, although nobody",
            |facts| {
                for webhook in webhooks(facts) {
                    let off = json!({"name": CONDITION, "expression": "false"});
                    webhook["matchConditions"].as_array_mut().unwrap().push(off);
                }
            },
        ),
        (
            Check::Answers,
            Level::Failure,
            "does not ask taskgate about a policy",
            |facts| {
                facts.probes.validating = Answer::Nobody;
            },
        ),
        (Check::Answers, Level::Failure, "failed calling webhook", |facts| {
            let why = "failed calling webhook \"validate.policies.taskgate.dev\": connection refused";
            facts.probes.validating = Answer::Failed(why.to_owned());
        }),
        (
            Check::Answers,
            Level::Failure,
            "does not ask taskgate about a Task in team",
            |facts| {
                facts.probes.mutating = Some(("team".to_owned(), Answer::Nobody));
            },
        ),
        (Check::Answers, Level::Warning, "could not be found out", |facts| {
            facts.probes.validating = Answer::Refused("forbidden".to_owned());
        }),
    ]);
}

#[test]
fn faults_of_the_certificate_are_told() {
    only(&[
        (
            Check::Certificate,
            Level::Failure,
            "there is no Secret taskgate-system/",
            |facts| {
                facts.certificate = Err(Unseen::Absent);
            },
        ),
        (
            Check::Certificate,
            Level::Failure,
            "there is no certificate in Secret",
            |facts| {
                facts.certificate.as_mut().unwrap().chain = None;
            },
        ),
        (
            Check::Certificate,
            Level::Failure,
            "the certificate in taskgate-serving-cert ends in 19 days",
            |facts| {
                facts.now = now() + days(70);
                heard_of_now(facts);
            },
        ),
    ]);
    let told = |plant: fn(&mut Facts)| {
        let mut facts = healthy();
        plant(&mut facts);
        let found = bad(&facts).into_iter();
        found
            .map(|finding| format!("{}: {}", finding.check.as_str(), finding.message))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let expired = told(|facts| {
        facts.now = now() + days(100);
        heard_of_now(facts);
    });
    assert!(
        expired.contains("certificate: the certificate in taskgate-serving-cert expired 11 days ago"),
        "{expired}"
    );
    assert!(
        expired.contains("ca-bundle: the caBundle of mutate.tasks.taskgate.dev"),
        "{expired}"
    );
    let early = told(|facts| {
        facts.now = now() - days(2);
        heard_of_now(facts);
    });
    assert!(
        early.contains("the certificate in taskgate-serving-cert is valid from 2026-01-30"),
        "{early}"
    );
    let renamed = told(|facts| facts.installation.namespace = "elsewhere".to_owned());
    assert!(
        renamed.contains("is not made out to taskgate.elsewhere.svc"),
        "{renamed}"
    );
    let foreign = told(|facts| {
        let bundle = json!(ByteString(issued(now()).ca_crt.unwrap()));
        webhook(facts, true, 2)["clientConfig"]["caBundle"] = bundle;
        let key = "k:{\"name\":\"validate.jobs.taskgate.dev\"}";
        let fields = json!({"f:webhooks": {key: {"f:clientConfig": {"f:caBundle": {}}}}});
        facts.validating.as_mut().unwrap()[0]["metadata"]["managedFields"] =
            json!([{"manager": "argocd", "fieldsV1": fields}]);
    });
    assert_eq!(
        foreign,
        "ca-bundle: the caBundle of validate.jobs.taskgate.dev does not lead to the certificate; argocd \
         (admission.taskgate.dev) has written it"
    );
    let without = told(|facts| webhook(facts, false, 0)["clientConfig"]["caBundle"] = Value::Null);
    assert_eq!(
        without,
        "ca-bundle: mutate.tasks.taskgate.dev has no caBundle: the API server trusts nobody there"
    );
}

/// Lets the leader be heard of at the time that it is.
fn heard_of_now(facts: &mut Facts) {
    let time = json!(facts.now.strftime("%FT%TZ").to_string());
    facts.server.clock = Some((facts.now, facts.now));
    let lease = facts.lease.as_mut().unwrap();
    lease["spec"]["renewTime"] = time.clone();
    lease["metadata"]["managedFields"][0]["time"] = time;
}

#[test]
fn faults_of_the_replicas_are_told() {
    only(&[
        (
            Check::Replicas,
            Level::Failure,
            "there is no Deployment taskgate-system/taskgate",
            |facts| {
                facts.deployment = Err(Unseen::Absent);
                facts.pods = Err(Unseen::Absent);
            },
        ),
        (Check::Replicas, Level::Failure, "0 of 2 ready: quota", |facts| {
            let condition = json!({"type": "ReplicaFailure", "status": "True", "message": "quota"});
            facts.deployment.as_mut().unwrap()["status"] = json!({"conditions": [condition]});
        }),
        (Check::Replicas, Level::Warning, "1 of 2 ready", |facts| {
            facts.deployment.as_mut().unwrap()["status"]["readyReplicas"] = json!(1);
        }),
        (
            Check::Versions,
            Level::Warning,
            "taskgate:0.0.1 and ghcr.io/taskgate/taskgate",
            |facts| {
                facts.pods.as_mut().unwrap()[0]["spec"]["containers"][0]["image"] = json!("ghcr.io/old/taskgate:0.0.1");
            },
        ),
        (
            Check::Versions,
            Level::Warning,
            "the pods run 9.0.0, this command is",
            |facts| {
                for pod in facts.pods.as_mut().unwrap() {
                    pod["spec"]["containers"][0]["image"] = json!("ghcr.io/taskgate/taskgate:9.0.0");
                }
            },
        ),
        (
            Check::Versions,
            Level::Warning,
            "are not understood: unexpected",
            |facts| {
                facts.installation.problem = Some("unexpected argument '--new'".to_owned());
            },
        ),
        (
            Check::Leader,
            Level::Failure,
            "there is no Lease taskgate-system/taskgate-controller",
            |facts| {
                facts.lease = Err(Unseen::Absent);
            },
        ),
        (Check::Leader, Level::Failure, "is free", |facts| {
            facts.lease = Ok(json!({}));
        }),
        (Check::Leader, Level::Failure, "was heard of 60 s ago", |facts| {
            let lease = facts.lease.as_mut().unwrap();
            lease["spec"]["renewTime"] = json!("2026-01-31T11:59:00Z");
            lease["metadata"]["managedFields"][0]["time"] = json!("2026-01-31T11:59:00Z");
        }),
        (
            Check::Leader,
            Level::Warning,
            "mallory-1 leads, and is none of the pods",
            |facts| {
                facts.lease.as_mut().unwrap()["spec"]["holderIdentity"] = json!("mallory-1");
            },
        ),
        (
            Check::Rights,
            Level::Failure,
            "lacks a right: finalizer, TTL",
            |facts| {
                let names = &facts.installation.names;
                let asked = crate::rights::questions::questions(names).into_iter();
                let denied = asked.filter(|asked| asked.resource == "tasks" && asked.verb == "patch");
                facts.denied = Ok(denied.collect());
            },
        ),
        (Check::Rights, Level::Warning, "cannot be read: User", |facts| {
            facts.denied = Err(refused());
        }),
    ]);
}

#[test]
fn faults_of_namespaces_and_policies_are_told() {
    only(&[
        (
            Check::Namespaces,
            Level::Warning,
            "its label opts it out: TaskPolicy/agents",
            |facts| {
                facts.namespaces.as_mut().unwrap()[3]["metadata"]["labels"]["taskgate.dev/admission"] =
                    json!("disabled");
            },
        ),
        (
            Check::Namespaces,
            Level::Warning,
            "taskgate.dev/admission=off, which means nothing",
            |facts| {
                facts.namespaces.as_mut().unwrap()[0]["metadata"]["labels"]["taskgate.dev/admission"] = json!("off");
            },
        ),
        (
            Check::Namespaces,
            Level::Warning,
            "kube-system is governed, taskgate never touches it: TaskSpawner/own",
            |facts| {
                facts.spawners.as_mut().unwrap().push(spawner("kube-system", "own"));
                facts.cluster_policies = Ok(vec![policy("", "all", &json!({"cancellationPolicy": {}}))]);
            },
        ),
        (Check::Policies, Level::Warning, "there is none", |facts| {
            facts.policies = Ok(Vec::new());
        }),
        (
            Check::Policies,
            Level::Failure,
            "TaskPolicy team/agents is ignored: spec.metadata.labels[a]",
            |facts| {
                set_policies(facts, &[("agents", json!({"metadata": {"labels": {"a": "{{ b"}}}))]);
            },
        ),
        (
            Check::Policies,
            Level::Failure,
            "TaskPolicy team/agents: ignored by the pods",
            |facts| {
                let condition = json!({"type": "Accepted", "status": "False", "message": "ignored by the pods"});
                facts.policies.as_mut().unwrap()[0]["status"]["conditions"] = json!([condition]);
            },
        ),
        (Check::Policies, Level::Warning, "has not been looked at", |facts| {
            facts.policies.as_mut().unwrap()[0]["metadata"]["generation"] = json!(2);
        }),
        (
            Check::Policies,
            Level::Warning,
            "TaskPolicy team/agents selects none of the 1 Tasks",
            |facts| {
                let selector = TaskSelector {
                    spawner_names: vec!["fixre".to_owned()],
                    ..TaskSelector::default()
                };
                set_policies(
                    facts,
                    &[(
                        "agents",
                        json!({"selector": selector, "failurePolicy": {"maxRetriesPerItem": 3}}),
                    )],
                );
            },
        ),
        (
            Check::Policies,
            Level::Warning,
            "ClusterTaskPolicy all selects no namespace",
            |facts| {
                let spec = json!({"namespaceSelector": {"matchLabels": {"team": "blue"}}, "failurePolicy": {}});
                facts.cluster_policies = Ok(vec![policy("", "all", &spec)]);
            },
        ),
        (
            Check::Policies,
            Level::Warning,
            "TaskPolicy team/weak never comes to bear: TaskPolicy/agents overrules it",
            |facts| {
                let failure = |limit: u32| json!({"failurePolicy": {"maxRetriesPerItem": limit}, "priority": limit});
                set_policies(facts, &[("agents", failure(3)), ("weak", failure(1))]);
            },
        ),
        (
            Check::Policies,
            Level::Warning,
            "TaskPolicy/a and TaskPolicy/b disagree on failurePolicy of team/TaskSpawner/fixer",
            |facts| {
                let spec = |limit: u32, key: &str| json!({"failurePolicy": {"maxRetriesPerItem": limit}, "metadata": {"labels": {key: "x"}}});
                set_policies(facts, &[("a", spec(3, "a")), ("b", spec(1, "b"))]);
            },
        ),
        (Check::Policies, Level::Warning, "has no section", |facts| {
            set_policies(facts, &[("agents", json!({}))]);
        }),
    ]);
}

#[test]
fn faults_of_queues_are_told() {
    only(&[
        (
            Check::Queues,
            Level::Failure,
            "TaskPolicy team/agents names a queue, and Kueue is not installed",
            |facts| {
                facts.groups.as_mut().unwrap().remove("kueue.x-k8s.io");
            },
        ),
        (
            Check::Queues,
            Level::Failure,
            "LocalQueue team/small, which TaskPolicy team/agents names, does not exist",
            |facts| {
                facts.kueue.queues = Ok(Vec::new());
            },
        ),
        (
            Check::Queues,
            Level::Failure,
            "is not active: no ClusterQueue",
            |facts| {
                let condition = json!({"type": "Active", "status": "False", "message": "no ClusterQueue"});
                facts.kueue.queues.as_mut().unwrap()[0]["status"]["conditions"] = json!([condition]);
            },
        ),
        (Check::Queues, Level::Warning, "is stopped by its stopPolicy", |facts| {
            facts.kueue.queues.as_mut().unwrap()[0]["spec"]["stopPolicy"] = json!("Hold");
        }),
        (
            Check::Queues,
            Level::Failure,
            "Kueue does not look after namespace team",
            |facts| {
                let config = "managedJobsNamespaceSelector: {matchLabels: {queues: 'yes'}}";
                facts.kueue.config = Ok(json!({"data": {"controller_manager_config.yaml": config}}));
            },
        ),
        (
            Check::Queues,
            Level::Warning,
            "WorkloadPriorityClass high, which TaskPolicy team/agents names",
            |facts| {
                set_policies(
                    facts,
                    &[("agents", json!({"queueName": "small", "queuePriorityClass": "high"}))],
                );
            },
        ),
        (Check::Queues, Level::Warning, "does not exist", |facts| {
            set_policies(facts, &[("agents", json!({"mode": "Observe", "queueName": "large"}))]);
        }),
    ]);
}

#[test]
fn what_may_not_be_read_is_a_warning_and_no_more() {
    let mut facts = healthy();
    let objects = || Err(refused());
    (facts.mutating, facts.validating, facts.pods) = (objects(), objects(), objects());
    (facts.namespaces, facts.policies, facts.cluster_policies, facts.spawners) =
        (objects(), objects(), objects(), objects());
    (facts.deployment, facts.lease, facts.service, facts.switch) =
        (Err(refused()), Err(refused()), Err(refused()), Err(refused()));
    (facts.certificate, facts.denied, facts.groups) = (Err(refused()), Err(refused()), Err(refused()));
    facts.tasks = Err(refused());
    facts.crds.values_mut().for_each(|crd| *crd = Err(refused()));
    let found = bad(&facts);
    assert!(
        found.iter().all(|finding| finding.level == Level::Warning),
        "{found:#?}"
    );
    assert!(found.len() > 8, "{found:#?}");
}

#[test]
fn without_anything_installed_everything_is_told_and_nothing_panics() {
    let mut facts = healthy();
    facts.crds.values_mut().for_each(|crd| *crd = Err(Unseen::Absent));
    (facts.mutating, facts.validating) = (Ok(Vec::new()), Ok(Vec::new()));
    (facts.deployment, facts.lease, facts.service) = (Err(Unseen::Absent), Err(Unseen::Absent), Err(Unseen::Absent));
    (facts.certificate, facts.pods) = (Err(Unseen::Absent), Err(Unseen::Absent));
    (facts.policies, facts.cluster_policies, facts.spawners) =
        (Err(Unseen::Absent), Err(Unseen::Absent), Err(Unseen::Absent));
    facts.tasks = Err(Unseen::Absent);
    facts.probes.mutating = None;
    let failed: Vec<_> = bad(&facts)
        .into_iter()
        .filter(|finding| finding.level == Level::Failure)
        .collect();
    for check in [
        Check::Kinds,
        Check::Registration,
        Check::Certificate,
        Check::Replicas,
        Check::Leader,
    ] {
        assert!(failed.iter().any(|finding| finding.check == check), "{failed:#?}");
    }
}

#[test]
fn a_task_is_asked_for_where_it_would_be_sent() {
    assert_eq!(namespace_to_ask_in(&healthy()).as_deref(), Some("team"));
    let mut facts = healthy();
    facts.namespaces.as_mut().unwrap()[3]["metadata"]["labels"]["taskgate.dev/admission"] = json!("disabled");
    assert_eq!(namespace_to_ask_in(&facts).as_deref(), Some("default"));
    facts.namespaces = Ok(vec![namespace("kube-system")]);
    assert_eq!(namespace_to_ask_in(&facts), None);
    facts = healthy();
    facts.crds.clear();
    assert_eq!(namespace_to_ask_in(&facts), None);
}

#[test]
fn tasks_and_workloads_are_selected_as_spawners_are() {
    let mut facts = healthy();
    facts.spawners = Ok(Vec::new());
    let selector = json!({"selector": {"taskTypes": ["codex"]}, "failurePolicy": {"maxRetriesPerItem": 3}});
    set_policies(&mut facts, &[("agents", selector)]);
    let task = |kind: &str| json!({"metadata": {"namespace": "team", "name": "a"}, "spec": {"type": kind}});
    facts.tasks = Ok(Page {
        objects: vec![task("codex")],
        more: true,
    });
    assert_eq!(bad(&facts), []);
    facts.tasks = Ok(Page {
        objects: vec![task("gemini")],
        more: true,
    });
    let [finding] = &bad(&facts)[..] else {
        panic!("{:#?}", bad(&facts))
    };
    assert!(
        finding
            .message
            .contains("selects none of the 1 Tasks, Workloads and spawners that were looked at"),
        "{finding:?}"
    );
}

#[test]
fn every_check_is_in_the_documentation() {
    let page = include_str!("../../../../../docs/doctor.md");
    for check in Check::ALL {
        assert!(
            page.contains(&format!("| `{}` |", check.as_str())),
            "{}",
            check.as_str()
        );
    }
}
