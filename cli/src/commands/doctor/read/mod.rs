//! Reading everything, once: first whether there is an API server, then how taskgate is run, then all the rest at the same
//! time, and last who answers.

mod installation;
mod probe;
mod reader;
mod rights;

use std::collections::BTreeMap;

use futures::join;
use jiff::Timestamp;
use kube::api::ListParams;
use taskgate_api::{GROUP, VERSION, foreman, kelos, kueue, switch};

use self::reader::Reader;
use super::{
    facts::{Facts, Kueue, Probes, Unseen},
    finding::Finding,
    judge,
};
use crate::commands::{
    Connection,
    kind::{CONFIG_MAP, CRD, DEPLOYMENT, Kind, LEASE, NAMESPACE, SERVICE},
};

/// The CustomResourceDefinitions that are looked at, besides our own: which flavour and release of the others there is.
const FOREIGN_CRDS: [&str; 4] = [
    judge::KELOS_CRD,
    judge::FOREMAN_CRD,
    judge::KUEUE_CRD,
    judge::CERT_MANAGER_CRD,
];
/// How many objects of a kind are looked at that may be very many.
const MANY: u32 = 500;

const MUTATING: Kind = (
    "admissionregistration.k8s.io",
    "v1",
    "MutatingWebhookConfiguration",
    "mutatingwebhookconfigurations",
);
const VALIDATING: Kind = (
    "admissionregistration.k8s.io",
    "v1",
    "ValidatingWebhookConfiguration",
    "validatingwebhookconfigurations",
);
const PODS: Kind = ("", "v1", "Pod", "pods");
const POLICIES: Kind = (GROUP, VERSION, "TaskPolicy", "taskpolicies");
const CLUSTER_POLICIES: Kind = (GROUP, VERSION, "ClusterTaskPolicy", "clustertaskpolicies");

/// What came of it.
pub(super) enum Reading {
    Facts(Box<Facts>),
    /// There is nobody to ask.
    NoServer(Finding),
}

/// The kinds of others, in the newest version that is served and understood.
struct Foreign {
    kelos_version: &'static str,
    tasks: Kind,
    spawners: Kind,
    workloads: Kind,
    queues: Kind,
    classes: Kind,
}

impl Foreign {
    fn of(groups: Option<&BTreeMap<String, Vec<String>>>) -> Self {
        let version = |group: &str, known: &[&'static str]| {
            let served = groups.and_then(|groups| groups.get(group));
            let is_served = |known: &&&str| served.is_some_and(|served| served.iter().any(|one| one == **known));
            known
                .iter()
                .find(is_served)
                .or(known.first())
                .copied()
                .unwrap_or_default()
        };
        let kelos_version = version(kelos::GROUP, &kelos::TASK_VERSIONS);
        let kueue_version = version(kueue::GROUP, &kueue::VERSIONS);
        let foreman_version = version(foreman::GROUP, &foreman::VERSIONS);
        Self {
            kelos_version,
            tasks: (kelos::GROUP, kelos_version, "Task", kelos::TASKS),
            spawners: (kelos::GROUP, kelos_version, "TaskSpawner", "taskspawners"),
            workloads: (foreman::GROUP, foreman_version, "Workload", foreman::WORKLOADS),
            queues: (kueue::GROUP, kueue_version, "LocalQueue", kueue::LOCAL_QUEUES),
            classes: (
                kueue::GROUP,
                kueue_version,
                "WorkloadPriorityClass",
                kueue::PRIORITY_CLASSES,
            ),
        }
    }
}

/// Reads everything. The namespace of `connection` is taskgate's.
pub(super) async fn read(connection: &Connection, configuration: &str, service: &str) -> Reading {
    let reader = Reader::new(connection.client.clone());
    let server = match reader.server().await {
        Ok(server) => server,
        Err(finding) => return Reading::NoServer(finding),
    };
    let namespace = connection.namespace.as_str();
    let own = Some(namespace);
    let (deployment, groups) = join!(reader.get(DEPLOYMENT, own, service), reader.groups());
    let installation = installation::of(namespace, service, configuration, deployment.as_ref().ok());
    let Foreign {
        kelos_version,
        tasks,
        spawners,
        workloads,
        queues,
        classes,
    } = Foreign::of(groups.as_ref().ok());
    let all = ListParams::default();
    let selector = deployment.as_ref().ok().and_then(installation::selector);
    let pods = async {
        match &selector {
            Some(selector) => reader.list(PODS, own, &all.clone().labels(selector)).await,
            None => Err(Unseen::Absent),
        }
    };
    let certificate = async {
        match &installation.secret {
            Some(secret) => reader.certificate(namespace, secret).await,
            None => Err(Unseen::Absent),
        }
    };
    let many = all.clone().limit(MANY);
    // Boxed, so that one future does not hold the states of all.
    let installed = Box::pin(async {
        join!(
            reader.crds(CRD, &FOREIGN_CRDS),
            reader.list(MUTATING, None, &all),
            reader.list(VALIDATING, None, &all),
            reader.get(SERVICE, own, service),
            certificate,
            reader.get(CONFIG_MAP, own, switch::CONFIG_MAP),
            pods,
            reader.get(LEASE, own, &installation.names.lease),
            rights::denied(&reader, &installation),
        )
    });
    let others = Box::pin(async {
        join!(
            reader.named(DEPLOYMENT, &judge::COMPANIONS),
            reader.list(NAMESPACE, None, &all),
            reader.list(POLICIES, None, &all),
            reader.list(CLUSTER_POLICIES, None, &all),
            reader.list(spawners, None, &all),
            reader.page(tasks, &many),
            reader.page(workloads, &many),
            reader.get(
                CONFIG_MAP,
                Some(&installation.kueue.namespace),
                &installation.kueue.name
            ),
            reader.list(queues, None, &all),
            reader.list(classes, None, &all),
        )
    });
    let (installed, others) = join!(installed, others);
    let (crds, mutating, validating, service, certificate, switch, pods, lease, denied) = installed;
    let (companions, namespaces, policies, cluster_policies, spawners, tasks, workloads, config, queues, classes) =
        others;
    let mut facts = Facts {
        now: Timestamp::now(),
        server,
        installation,
        groups,
        crds,
        mutating,
        validating,
        service,
        certificate,
        switch,
        deployment,
        pods,
        lease,
        denied,
        companions,
        namespaces,
        policies,
        cluster_policies,
        spawners,
        tasks,
        workloads,
        kueue: Kueue {
            config,
            queues,
            classes,
        },
        probes: Probes::default(),
    };
    facts.probes = probe::ask(&reader, kelos_version, &facts).await;
    Reading::Facts(Box::new(facts))
}
