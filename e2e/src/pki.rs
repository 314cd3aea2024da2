//! The certificates of one control plane, made on the spot and gone with it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

use crate::components::SERVICE_IP;

/// A certificate and its key, both PEM.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// Everything that the components and the admin need to know each other.
#[derive(Debug)]
pub(crate) struct Pki {
    pub(crate) ca: String,
    pub(crate) admin: Pair,
    pub(crate) controller_manager: Pair,
}

impl Pki {
    /// Makes all of it and writes the server's share into `dir`.
    ///
    /// Keys are ECDSA P-256: kube-apiserver takes them for service account tokens too.
    pub(crate) fn write(dir: &Path) -> anyhow::Result<Self> {
        let put = |name: &str, content: &str| {
            let path = dir.join(name);
            std::fs::write(&path, content).with_context(|| format!("writing {}", path.display()))
        };
        let ca = authority("taskgate-e2e-ca")?;
        let front_proxy_ca = authority("taskgate-e2e-front-proxy-ca")?;
        let serving = leaf(&ca, Purpose::Serving, "kube-apiserver", None)?;
        let front_proxy = leaf(&front_proxy_ca, Purpose::Client, FRONT_PROXY, None)?;
        let service_accounts = KeyPair::generate()?;

        put("ca.crt", &ca.pem())?;
        put("front-proxy-ca.crt", &front_proxy_ca.pem())?;
        put("apiserver.crt", &serving.cert)?;
        put("apiserver.key", &serving.key)?;
        put("front-proxy.crt", &front_proxy.cert)?;
        put("front-proxy.key", &front_proxy.key)?;
        put("sa.key", &service_accounts.serialize_pem())?;
        put("sa.pub", &service_accounts.public_key_pem())?;
        Ok(Self {
            ca: ca.pem(),
            admin: leaf(&ca, Purpose::Client, "taskgate-e2e-admin", Some("system:masters"))?,
            controller_manager: leaf(&ca, Purpose::Client, "system:kube-controller-manager", None)?,
        })
    }
}

/// Replaces the API server's certificate in `dir` by one of another CA, which is returned, PEM. Clients keep their certificates.
pub(crate) fn replace_serving_ca(dir: &Path) -> anyhow::Result<String> {
    let ca = authority("taskgate-e2e-next-ca")?;
    let serving = leaf(&ca, Purpose::Serving, "kube-apiserver", None)?;
    std::fs::write(dir.join("apiserver.crt"), &serving.cert)?;
    std::fs::write(dir.join("apiserver.key"), &serving.key)?;
    Ok(ca.pem())
}

/// Common name of the certificate that kube-apiserver shows to aggregated servers.
pub(crate) const FRONT_PROXY: &str = "front-proxy-client";

#[derive(Clone, Copy)]
enum Purpose {
    Serving,
    Client,
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(name, None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}

fn leaf(ca: &CertifiedIssuer<'_, KeyPair>, purpose: Purpose, name: &str, group: Option<&str>) -> anyhow::Result<Pair> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(name, group);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match purpose {
        Purpose::Serving => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Purpose::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
    };
    if let Purpose::Serving = purpose {
        params.subject_alt_names = vec![
            SanType::DnsName("localhost".try_into()?),
            SanType::DnsName("kubernetes.default.svc".try_into()?),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            SanType::IpAddress(SERVICE_IP.parse()?),
        ];
    }
    let key = KeyPair::generate()?;
    let cert = params.signed_by(&key, ca)?;
    Ok(Pair {
        cert: cert.pem(),
        key: key.serialize_pem(),
    })
}

fn subject(name: &str, group: Option<&str>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    if let Some(group) = group {
        subject.push(DnType::OrganizationName, group);
    }
    subject
}
