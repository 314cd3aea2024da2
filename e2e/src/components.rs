//! Flags of the three components: what they must be told, and what keeps them quiet.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use crate::pki::FRONT_PROXY;
use crate::ports::free_port;
use crate::process_spec::ProcessSpec;

/// First address of the service range, which the API server's certificate must name.
pub(crate) const SERVICE_IP: &str = "10.0.0.1";
const SERVICE_RANGE: &str = "10.0.0.0/24";

/// Controllers that run: what works without a node, and none that writes by itself.
///
/// Left out on purpose: the pod garbage collector (no node exists, so every pod that is
/// given one would be an orphan) and the publishers of cluster trust bundles.
const CONTROLLERS: &[&str] = &[
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "deployment-controller",
    "disruption-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "replicaset-controller",
    "resourcequota-controller",
    "serviceaccount-controller",
    "ttl-after-finished-controller",
    "validatingadmissionpolicy-status-controller",
];

/// Where the components listen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) etcd: u16,
    pub(crate) apiserver: u16,
    controller_manager: u16,
}

impl Ports {
    pub(crate) fn pick() -> anyhow::Result<Self> {
        Ok(Self {
            etcd: free_port()?,
            apiserver: free_port()?,
            controller_manager: free_port()?,
        })
    }
}

/// A component is worth nothing without its peers: when all ends, it need not say goodbye.
fn component(assets: &Path, name: &str) -> ProcessSpec {
    ProcessSpec::new(name, assets.join(name)).grace(Duration::ZERO)
}

pub(crate) fn etcd(assets: &Path, ports: Ports) -> ProcessSpec {
    let url = format!("http://127.0.0.1:{}", ports.etcd);
    component(assets, "etcd")
        .args(["--data-dir=etcd", "--unsafe-no-fsync", "--log-level=warn"])
        .arg(format!("--listen-client-urls={url}"))
        .arg(format!("--advertise-client-urls={url}"))
        // Its only member never calls itself; any port will do.
        .arg("--listen-peer-urls=http://127.0.0.1:0")
        .ready_at(format!("{url}/readyz"))
}

/// kube-apiserver 1.36: RBAC, every admission plugin that is on by default.
///
/// While idle it writes nothing, so that the revision of etcd proves that nothing happened:
/// the identity lease (renewed every 10 s; the interoperability proxy depends on it and goes
/// with it) and the periodic compaction (which writes `compact_rev_key` every 5 minutes) are
/// off.
pub(crate) fn apiserver(assets: &Path, ports: Ports, audit: bool) -> ProcessSpec {
    let spec = component(assets, "kube-apiserver")
        .arg(format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd))
        .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
        .arg(format!("--secure-port={}", ports.apiserver))
        .args([
            "--cert-dir=pki",
            "--tls-cert-file=pki/apiserver.crt",
            "--tls-private-key-file=pki/apiserver.key",
            "--client-ca-file=pki/ca.crt",
            "--service-account-key-file=pki/sa.pub",
            "--service-account-signing-key-file=pki/sa.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--requestheader-client-ca-file=pki/front-proxy-ca.crt",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--proxy-client-cert-file=pki/front-proxy.crt",
            "--proxy-client-key-file=pki/front-proxy.key",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            "--endpoint-reconciler-type=none",
            "--etcd-compaction-interval=0",
            "--feature-gates=APIServerIdentity=false,UnknownVersionInteroperabilityProxy=false",
        ])
        .arg(format!("--requestheader-allowed-names={FRONT_PROXY}"))
        .arg(format!("--service-cluster-ip-range={SERVICE_RANGE}"))
        .ready_at(format!("https://127.0.0.1:{}/readyz", ports.apiserver));
    if !audit {
        return spec;
    }
    spec.args([
        "--audit-policy-file=audit-policy.json",
        "--audit-log-path=log/audit.log",
        // A request is in the log before it is worked on, and again before it is done.
        "--audit-log-mode=blocking",
        // Mebibytes; never rotated within the life of a test.
        "--audit-log-maxsize=4096",
    ])
}

/// What the audit log holds: every request, writes with their bodies.
///
/// Mutating webhooks leave their mark from level Metadata on, their patches from level
/// Request on. Secrets and tokens stay out, as in any audit policy.
pub(crate) fn write_audit_policy(dir: &Path) -> anyhow::Result<()> {
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "rules": [
            {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/metrics"]},
            {"level": "Metadata", "resources": [
                {"group": "", "resources": ["secrets", "serviceaccounts/token"]},
                // A megabyte each, and no test reads them.
                {"group": "apiextensions.k8s.io", "resources": ["customresourcedefinitions"]},
            ]},
            {"level": "Request", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
            {"level": "Metadata"},
        ],
    });
    let path = dir.join("audit-policy.json");
    std::fs::write(&path, serde_json::to_vec(&policy)?).with_context(|| format!("writing {}", path.display()))
}

/// kube-controller-manager, with a service account per controller as in a real cluster.
pub(crate) fn controller_manager(assets: &Path, ports: Ports) -> ProcessSpec {
    component(assets, "kube-controller-manager")
        .args(["--kubeconfig=controller-manager.kubeconfig", "--leader-elect=false"])
        .args([
            "--service-account-private-key-file=pki/sa.key",
            "--root-ca-file=pki/ca.crt",
        ])
        .arg("--use-service-account-credentials")
        .arg(format!("--controllers={}", CONTROLLERS.join(",")))
        // It has no other client to leave room for.
        .args(["--kube-api-qps=500", "--kube-api-burst=1000"])
        .arg("--bind-address=127.0.0.1")
        .arg(format!("--secure-port={}", ports.controller_manager))
        .ready_at(format!("https://127.0.0.1:{}/healthz", ports.controller_manager))
}
