//! The state of the cluster that the checks evaluate, read once: first the API server itself, then the settings of the
//! installation, then everything else concurrently.

use std::{collections::HashSet, time::Duration};

use futures::{StreamExt as _, future::join_all, join, stream};
use http::Request;
use http_body_util::{BodyExt as _, Collected};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::UserInfo;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::version::Info};
use kube::{Api, Client, api::ListParams, client::Body};
use taskgate_api::{foreman, kelos, kelos_fields, kueue, switch};
use taskgate_certs::SecretData;
use taskgate_policy::Right;
use taskgate_webhook::{ClusterReadError, check_access};
use tokio::time::timeout;

use super::{
    installation::{Installation, pod_selector},
    probe::Probes,
    report::{DoctorCheck, DoctorFinding, Findings},
};
use crate::{
    cluster::{Connection, date},
    commands::snapshot::{
        ApiGroups, Collection, CollectionQuery, KUEUE_DEPLOYMENT, ReadError, Snapshot, SnapshotReader,
    },
    output::ProgressLine,
    rights::review::permissions,
};

/// How many Tasks and Workloads are read.
const PAGE: u32 = 500;
/// How many pods are read, and how long a response of one may take.
const MAX_PODS: usize = 10;
const POD_TIMEOUT: Duration = Duration::from_secs(3);
/// How many access reviews are sent at once.
const CONCURRENT_REVIEWS: usize = 12;

/// taskgate's own CustomResourceDefinitions.
pub(super) const OWN_CRDS: [&str; 3] = [
    "clustertaskpolicies.taskgate.dev",
    "taskpolicies.taskgate.dev",
    "workitems.taskgate.dev",
];
pub(super) const KELOS_CRD: &str = "tasks.kelos.dev";
pub(super) const SPAWNER_CRD: &str = "taskspawners.kelos.dev";
pub(super) const FOREMAN_CRD: &str = "workloads.foreman.llmkube.dev";
pub(super) const KUEUE_CRD: &str = "workloads.kueue.x-k8s.io";
pub(super) const CERT_MANAGER_CRD: &str = "certificates.cert-manager.io";
pub(super) const KELOS_DEPLOYMENT: &str = "kelos-controller-manager";

/// A system that taskgate works with.
pub(super) struct OtherSystem {
    pub(super) check: DoctorCheck,
    pub(super) name: &'static str,
    pub(super) group: &'static str,
    /// The versions of its kinds that taskgate knows.
    pub(super) versions: &'static [&'static str],
    /// The CustomResourceDefinition that is read for its release and its capabilities.
    pub(super) crd: &'static str,
    /// The Deployment that is read for its release, by the name in its own manifests.
    pub(super) deployment: Option<&'static str>,
}

pub(super) const OTHER_SYSTEMS: [OtherSystem; 4] = [
    OtherSystem {
        check: DoctorCheck::Kelos,
        name: "Kelos",
        group: kelos::GROUP,
        versions: &kelos::TASK_VERSIONS,
        crd: KELOS_CRD,
        deployment: Some(KELOS_DEPLOYMENT),
    },
    OtherSystem {
        check: DoctorCheck::Foreman,
        name: "Foreman",
        group: foreman::GROUP,
        versions: &foreman::VERSIONS,
        crd: FOREMAN_CRD,
        deployment: None,
    },
    OtherSystem {
        check: DoctorCheck::Kueue,
        name: "Kueue",
        group: kueue::GROUP,
        versions: &kueue::VERSIONS,
        crd: KUEUE_CRD,
        deployment: Some(KUEUE_DEPLOYMENT),
    },
    OtherSystem {
        check: DoctorCheck::CertManager,
        name: "cert-manager",
        group: "cert-manager.io",
        versions: &["v1"],
        crd: CERT_MANAGER_CRD,
        deployment: Some("cert-manager"),
    },
];

/// The state of the cluster.
pub(super) struct ClusterState {
    pub(super) now: Timestamp,
    pub(super) server: ApiServer,
    pub(super) installation: Installation,
    pub(super) groups: Result<ApiGroups, ReadError>,
    pub(super) snapshot: Snapshot,
    pub(super) certificate: Result<Certificate, ReadError>,
    /// The rights that taskgate's service account needs and does not have.
    pub(super) denied: Result<HashSet<Right>, ReadError>,
    pub(super) probes: Probes,
    /// The pods that do not lead because of their clocks, each with the reason that it gives.
    pub(super) unfit: Vec<(String, String)>,
}

/// The API server.
#[derive(Clone, Debug)]
pub(super) struct ApiServer {
    /// Major and minor version, and both as `v1.36.3`.
    pub(super) version: (u32, u32, String),
    /// The time of the API server, and of this machine at the same moment. `None`: its response has no time.
    pub(super) clock: Option<(Timestamp, Timestamp)>,
}

/// The public part of the Secret with the certificate, PEM.
#[derive(Clone, Debug, Default)]
pub(super) struct Certificate {
    pub(super) chain: Option<Vec<u8>>,
    pub(super) authorities: Option<Vec<u8>>,
}

/// Reads the state, without the probes; or a finding when the API server does not answer. The namespace of `connection` is
/// taskgate's.
pub(super) async fn read(
    connection: &Connection,
    configuration: &str,
    service: &str,
) -> Result<(ClusterState, SnapshotReader), Vec<DoctorFinding>> {
    let server = api_server(&connection.client).await.map_err(no_api_server)?;
    let reader = SnapshotReader::discover(connection.clone(), true)
        .await
        .map_err(|error| no_api_server((format!("it does not answer: {error:#}"), UNREACHABLE)))?;
    let own = Some(connection.namespace.as_str());
    let mut snapshot = reader
        .read([CollectionQuery::get(Collection::Deployment, own, service)])
        .await;
    let deployment = snapshot.one(Collection::Deployment).ok();
    let installation = Installation::of(&connection.namespace, service, configuration, deployment)
        .map_err(|error| no_api_server((error, "report this as a bug of taskgate")))?;
    let queries = queries(&reader, &installation, deployment.and_then(pod_selector));
    let certificate = async {
        match installation.secret() {
            Some(secret) => certificate(connection, secret).await,
            None => Err(ReadError::Absent),
        }
    };
    let (others, certificate) = join!(reader.read(queries), certificate);
    snapshot.extend(others);
    let (denied, unfit) = join!(
        denied(&connection.client, &installation),
        unfit(connection, &snapshot, installation.serve.admin_listen.port()),
    );
    let state = ClusterState {
        now: Timestamp::now(),
        server,
        installation,
        groups: reader.groups.clone(),
        snapshot,
        certificate,
        denied,
        probes: Probes::default(),
        unfit,
    };
    Ok((state, reader))
}

fn queries(reader: &SnapshotReader, installation: &Installation, pods: Option<String>) -> Vec<CollectionQuery> {
    let own = Some(installation.namespace.as_str());
    let kueue = &installation.serve.kueue_config;
    let mut queries = vec![
        CollectionQuery::get(Collection::Service, own, &installation.service),
        CollectionQuery::get(Collection::DisableSwitch, own, switch::CONFIG_MAP),
        CollectionQuery::get(Collection::KelosFields, own, kelos_fields::CONFIG_MAP),
        CollectionQuery::get(Collection::Lease, own, &installation.names.lease),
        CollectionQuery::get(Collection::KueueConfig, Some(&kueue.namespace), &kueue.name),
    ];
    let all = [
        Collection::MutatingConfigurations,
        Collection::ValidatingConfigurations,
        Collection::Namespaces,
        Collection::Policies,
        Collection::ClusterPolicies,
        Collection::Spawners,
        Collection::LocalQueues,
        Collection::PriorityClasses,
    ];
    queries.extend(all.map(|collection| reader.query(collection)));
    let page = |collection| CollectionQuery::list(collection, None, ListParams::default().limit(PAGE));
    queries.extend([Collection::Tasks, Collection::Workloads].map(page));
    let crds = OWN_CRDS
        .into_iter()
        .chain(OTHER_SYSTEMS.iter().map(|system| system.crd))
        .chain([SPAWNER_CRD]);
    queries.extend(crds.map(|name| CollectionQuery::get(Collection::Crd(name), None, name)));
    let deployments = OTHER_SYSTEMS.iter().filter_map(|system| system.deployment);
    queries.extend(deployments.map(|name| {
        let params = ListParams::default().fields(&format!("metadata.name={name}"));
        CollectionQuery::list(Collection::Deployments(name), None, params)
    }));
    queries.extend(
        pods.map(|selector| CollectionQuery::list(Collection::Pods, own, ListParams::default().labels(&selector))),
    );
    queries
}

/// The pods that do not lead because of their clocks, by their `/readyz`. A pod that cannot be read so, for want of a right or a way
/// through the network, is left out.
///
/// RBAC: `get` on pods/proxy.
async fn unfit(connection: &Connection, snapshot: &Snapshot, port: u16) -> Vec<(String, String)> {
    let pods = snapshot.objects(Collection::Pods).iter().take(MAX_PODS);
    let readings = pods.filter_map(|pod| {
        let name = pod.pointer("/metadata/name")?.as_str()?;
        let path = format!(
            "/api/v1/namespaces/{}/pods/{name}:{port}/proxy/readyz",
            connection.namespace
        );
        let request = Request::get(path).body(Vec::new()).ok()?;
        Some(async move {
            let text = timeout(POD_TIMEOUT, connection.client.request_text(request)).await;
            Some((name.to_owned(), clock_note(&text.ok()?.ok()?)?.to_owned()))
        })
    });
    join_all(readings).await.into_iter().flatten().collect()
}

/// What a replica's `/readyz` says about its clock, if that keeps it from leading.
fn clock_note(readyz: &str) -> Option<&str> {
    readyz.lines().find_map(|line| line.strip_prefix("[+]clock ok, but "))
}

/// The public part of the Secret with the certificate. Its keys go no further than this function.
async fn certificate(connection: &Connection, name: &str) -> Result<Certificate, ReadError> {
    let secrets = Api::<Secret>::namespaced(connection.client.clone(), &connection.namespace);
    let SecretData { tls_crt, ca_crt, .. } = SecretData::from(&secrets.get(name).await?);
    Ok(Certificate {
        chain: tls_crt,
        authorities: ca_crt,
    })
}

const UNREACHABLE: &str = "is the kubeconfig that of this cluster, and the network up?";

fn no_api_server((message, advice): (String, &str)) -> Vec<DoctorFinding> {
    let mut findings = Findings::new();
    findings.begin(DoctorCheck::ApiServer);
    findings.failure(message, advice);
    findings.all
}

/// The version and the time of the API server; else the message and the advice of a finding.
async fn api_server(client: &Client) -> Result<ApiServer, (String, &'static str)> {
    let before = Timestamp::now();
    let request = Request::get("/version").body(Body::empty());
    let request = request.map_err(|error| (error.to_string(), "report this as a bug of taskgate"))?;
    let response = client.send(request).await.map_err(|error| {
        let message = format!("it does not answer: {:#}", anyhow::Error::from(error));
        (message, UNREACHABLE)
    })?;
    let after = Timestamp::now();
    let status = response.status();
    if status.as_u16() == 401 {
        return Err((
            "it does not accept the credentials: Unauthorized".to_owned(),
            "log in again: the credentials in the kubeconfig are expired or wrong",
        ));
    }
    let date = date(response.headers());
    let body = response.into_body().collect().await.map(Collected::to_bytes);
    let info = body.ok().and_then(|body| serde_json::from_slice::<Info>(&body).ok());
    let info = info.filter(|_| status.is_success()).ok_or_else(|| {
        let message = format!("it does not return its version: {status}");
        (message, "is this the address of a Kubernetes API server?")
    })?;
    let number = |text: &str| {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        digits.parse().unwrap_or_default()
    };
    // The header has whole seconds: half a second later is the best estimate.
    let there = date.map(|date| date + SignedDuration::from_millis(500));
    let here = before + after.duration_since(before) / 2;
    Ok(ApiServer {
        version: (number(&info.major), number(&info.minor), info.git_version),
        clock: there.map(|there| (there, here)),
    })
}

/// The rights that taskgate's service account needs and does not have, by one access review each.
///
/// RBAC: `create` on subjectaccessreviews; nothing is stored.
async fn denied(client: &Client, installation: &Installation) -> Result<HashSet<Right>, ReadError> {
    let Installation { namespace, account, .. } = installation;
    let user = UserInfo {
        username: Some(format!("system:serviceaccount:{namespace}:{account}")),
        groups: Some(vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ]),
        ..UserInfo::default()
    };
    let rights = permissions(&installation.names);
    let progress = ProgressLine::new("reviewing taskgate's rights");
    let total = rights.len();
    let results = rights.into_iter().map(async |right| {
        let decision = check_access(client, &user, &right).await?;
        Ok((!decision.allowed).then_some(right))
    });
    let mut results = stream::iter(results).buffer_unordered(CONCURRENT_REVIEWS).enumerate();
    let mut denied = HashSet::new();
    while let Some((index, result)) = results.next().await {
        progress.at(index, total);
        denied.extend(result.map_err(|error: ClusterReadError| ReadError::Refused(error.reason))?);
    }
    Ok(denied)
}
