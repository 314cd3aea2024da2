//! Certificates that rotate every few seconds, under load, with failure policy Fail: one that the API server does not trust is
//! one failed create.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::ensure;
use k8s_openapi::api::core::v1::Secret;
use kelos_standin::CRDS;
use kube::Api;
use serde_json::json;
use taskgate_e2e::{Balancer, CertManager, ControlPlane, GATE_NAMESPACE, PATIENCE, eventually, is_soak};

use crate::late::Late;
use crate::load::{Calls, Load, nothing_was_lost};
use crate::support::ReplicaFixture;

const FAIL: &str = "--failure-policy=fail";
const SELF_SIGNED: &str = "taskgate-serving-cert";
const CERT_MANAGED: &str = "taskgate-tls";
const CERTIFICATE: &str = "taskgate-tls";
/// How often cert-manager is told to issue a leaf, and an authority.
const LEAF: Duration = Duration::from_secs(5);
const CA: Duration = Duration::from_secs(15);

/// The certificates that a Secret contained, one after another.
#[derive(Default)]
struct Certificates {
    leaves: HashSet<Vec<u8>>,
    authorities: HashSet<Vec<u8>>,
}

impl Certificates {
    async fn read(&mut self, secrets: &Api<Secret>, name: &str) -> anyhow::Result<()> {
        let data = secrets
            .get_opt(name)
            .await?
            .and_then(|secret| secret.data)
            .unwrap_or_default();
        if let (Some(leaf), Some(ca)) = (data.get("tls.crt"), data.get("ca.crt")) {
            let end = b"-----END CERTIFICATE-----";
            let first = ca.0.windows(end.len()).position(|window| window == end).unwrap_or(0);
            self.leaves.insert(leaf.0.clone());
            self.authorities.insert(ca.0[..first].to_vec());
        }
        Ok(())
    }

    /// How many there were, once there were as many as are wanted: more where there is time.
    fn reach(&self, leaves: usize, authorities: usize) -> anyhow::Result<String> {
        let times = if is_soak() { 4 } else { 1 };
        let counts = format!("{} leaves of {} authorities", self.leaves.len(), self.authorities.len());
        let enough = self.leaves.len() >= leaves * times && self.authorities.len() >= authorities * times;
        ensure!(enough, "{counts}");
        Ok(counts)
    }
}

/// On a busy machine they rotate later.
fn deadline() -> Duration {
    PATIENCE * if is_soak() { 12 } else { 4 }
}

#[tokio::test(flavor = "multi_thread")]
async fn taskgates_own_leaf_and_ca_rotate_and_no_call_fails() -> anyhow::Result<()> {
    // A leaf is replaced when a third of its life is left, after 13 s; the authority after 32 s, when the leaf that is served has
    // yet another 14 s: long enough for a busy machine to publish the new one first.
    let fixture = ReplicaFixture::start(|gate| {
        gate.registration_flag(FAIL)
            .serve_flag("--cert-lifetime=20s")
            .serve_flag("--ca-lifetime=50s")
    })
    .await?;
    let secrets: Api<Secret> = Api::namespaced(fixture.cp.client(), GATE_NAMESPACE);
    let before = Calls::read(&fixture.cp).await?;
    let load = Load::start(&fixture.ns, false);
    let late = Late::start(
        &fixture,
        fixture.gates.iter().map(|gate| gate.url().to_owned()).collect(),
    );
    let mut certificates = Certificates::default();
    let rotated = eventually("leaf and authority have rotated", deadline(), async || {
        certificates.read(&secrets, SELF_SIGNED).await?;
        // With one leaf after those of the first authority's life and the first of the next: by then that one was served.
        certificates.reach(5, 2)
    })
    .await?;
    eprintln!("{rotated}");
    eprintln!("{} handshakes by a late reader", late.stop().await?);
    let tally = load.stop().await?;
    nothing_was_lost(&fixture.cp, before, &tally).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cert_managers_secret_is_swapped_and_no_call_fails() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).audit(false).start().await?;
    let _cert_manager = CertManager::start(&cp).await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": GATE_NAMESPACE}});
    cp.apply_yaml(&namespace.to_string()).await?;
    cp.apply_yaml(&CertManager::certificate()?).await?;
    let fixture = ReplicaFixture::on(cp, Balancer::start().await?, |gate| {
        gate.registration_flag(FAIL)
            .registration_flag(format!("--inject-ca-from={GATE_NAMESPACE}/{CERTIFICATE}"))
            .serve_flag("--cert-mode=cert-manager")
    })
    .await?;
    let secrets: Api<Secret> = Api::namespaced(fixture.cp.client(), GATE_NAMESPACE);
    let before = Calls::read(&fixture.cp).await?;
    let load = Load::start(&fixture.ns, false);
    let mut certificates = Certificates::default();
    let (mut last_leaf, mut last_ca) = (Instant::now(), Instant::now());
    let rotated = eventually("leaf and authority have rotated", deadline(), async || {
        certificates.read(&secrets, CERT_MANAGED).await?;
        if last_ca.elapsed() >= CA {
            last_ca = Instant::now();
            renew(&fixture.cp, "taskgate-ca").await?;
        }
        if last_leaf.elapsed() >= LEAF {
            last_leaf = Instant::now();
            renew(&fixture.cp, CERTIFICATE).await?;
        }
        certificates.reach(6, 2)
    })
    .await?;
    eprintln!("{rotated}");
    let tally = load.stop().await?;
    nothing_was_lost(&fixture.cp, before, &tally).await
}

/// Has a Certificate issued anew, as `cmctl renew` does.
async fn renew(cp: &ControlPlane, certificate: &str) -> anyhow::Result<()> {
    let condition = json!({"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "by a test"});
    let patch = json!({"status": {"conditions": [condition]}}).to_string();
    eventually("the Certificate is to be issued", PATIENCE, || async {
        let args = [
            "-n",
            GATE_NAMESPACE,
            "patch",
            "certificates.cert-manager.io",
            certificate,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ];
        cp.kubectl(args).await?.stdout_ok().map(drop)
    })
    .await
}
