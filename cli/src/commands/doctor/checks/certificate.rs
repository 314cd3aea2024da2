//! Checks of the serving certificate, and whether the API server trusts it.

use k8s_openapi::ByteString;
use serde_json::Value;
use taskgate_certs::{CertificateChain, San, Validity};

use super::{base_url, length, list, name_of, own_configurations, own_webhooks, some, text};
use crate::{
    commands::{
        doctor::{
            installation::Installation,
            report::{DoctorCheck, Findings},
            state::{Certificate, ClusterState},
        },
        snapshot::ReadError,
    },
    serve::args::CertMode,
};

/// A certificate is replaced when less than a third of its life is left: with less than a quarter, that has failed.
const OVERDUE: i128 = 4;

/// A webhook's name and its CA bundle.
type Bundle = (String, Option<Vec<u8>>);

pub(super) fn certificate(state: &ClusterState, findings: &mut Findings) {
    findings.begin(DoctorCheck::Certificate);
    let bundles = bundles(state);
    let Some(secret) = state.installation.secret() else {
        findings.ok("from files in the pods, which are not read; the check of the answers shows whether it works");
        return missing_bundles(&bundles, findings);
    };
    let certificate = match &state.certificate {
        Ok(certificate) => certificate,
        Err(ReadError::Absent) => return absent(state, secret, "there is no Secret", findings),
        Err(error) => {
            findings.unreadable(&format!("Secret {secret}"), error);
            return missing_bundles(&bundles, findings);
        }
    };
    let Some(chain) = certificate.chain.as_deref().and_then(CertificateChain::from_pem) else {
        return absent(state, secret, "there is no certificate in Secret", findings);
    };
    validity(state, secret, &chain, certificate, findings);
    trust(state, &chain, &bundles, findings);
}

fn absent(state: &ClusterState, secret: &str, what: &str, findings: &mut Findings) {
    let advice = advice(
        state,
        "taskgate creates it when it starts: see whether its pods run, and their log",
    );
    let namespace = &state.installation.namespace;
    findings.failure(format!("{what} {namespace}/{secret}"), advice);
}

/// What helps where the certificate is wrong: `own`, where taskgate makes it.
fn advice(state: &ClusterState, own: &'static str) -> &'static str {
    match state.installation.serve.cert_mode {
        CertMode::SelfSigned => own,
        CertMode::CertManager | CertMode::Files => "ask cert-manager: kubectl describe certificate",
    }
}

/// The names and the validity of the certificate, and the validity of its CA.
fn validity(
    state: &ClusterState,
    secret: &str,
    chain: &CertificateChain,
    certificate: &Certificate,
    findings: &mut Findings,
) {
    let now = state.now;
    let advice = advice(
        state,
        "taskgate replaces it automatically: see the log of its pods, and rights below",
    );
    if let Some(name) = dialled_name(state).filter(|name| !chain.is_for(name)) {
        let message = format!("{secret} is not issued for {name}, which the API server calls");
        findings.failure(message, advice);
    }
    let authority = certificate.authorities.as_deref().and_then(Validity::of);
    let lives = [
        ("the certificate", Some(chain.validity())),
        ("its authority", authority),
    ];
    for (what, life) in lives {
        let Some(life) = life else { continue };
        let problem = if now < life.from {
            format!("is valid from {} on only", life.from)
        } else if now >= life.until {
            format!("expired {} ago", length(now.duration_since(life.until)))
        } else if life.is_nearly_over(now, OVERDUE) {
            format!("ends in {}, and was to be replaced before", length(life.left(now)))
        } else {
            continue;
        };
        findings.failure(format!("{what} in {secret} {problem}"), advice);
    }
    if findings.is_clean() {
        let left = |life: Validity| length(life.left(now));
        let authority = authority.map_or_else(String::new, |life| format!(", its authority for {}", left(life)));
        let message = format!("{secret}: valid for another {}{authority}", left(chain.validity()));
        findings.ok(message);
    }
}

/// The name that the API server dials.
fn dialled_name(state: &ClusterState) -> Option<San> {
    if let Some(url) = own_webhooks(state).next().and_then(base_url) {
        let host = url.trim_start_matches("https://");
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        return host.trim_matches(['[', ']']).parse().ok();
    }
    let Installation { service, namespace, .. } = &state.installation;
    San::of_service(service, namespace).ok()?.into_iter().next()
}

fn bundles(state: &ClusterState) -> Vec<Bundle> {
    let bundle = |webhook: &Value| {
        let bundle = webhook.pointer("/clientConfig/caBundle")?;
        bundle.as_str().filter(|text| !text.is_empty())?;
        let bundle: ByteString = serde_json::from_value(bundle.clone()).ok()?;
        Some(bundle.0)
    };
    let webhooks = own_webhooks(state);
    webhooks
        .map(|webhook| (text(webhook, "/name").to_owned(), bundle(webhook)))
        .collect()
}

/// The webhooks without a CA bundle.
fn missing_bundles(bundles: &[Bundle], findings: &mut Findings) {
    findings.begin(DoctorCheck::CaBundle);
    let missing = bundles.iter().filter(|(_, bundle)| bundle.is_none());
    let missing: Vec<_> = missing.map(|(name, _)| name.clone()).collect();
    if !missing.is_empty() {
        findings.failure(
            format!(
                "{} has no caBundle: the API server trusts no certificate",
                some(&missing)
            ),
            "the provider of the certificate writes it: taskgate's pods, or cert-manager's CA injector; see their log",
        );
    }
}

/// Whether the CA bundles lead to the certificate.
fn trust(state: &ClusterState, chain: &CertificateChain, bundles: &[Bundle], findings: &mut Findings) {
    missing_bundles(bundles, findings);
    let distrusts = |bundle: &Vec<u8>| !chain.is_trusted_by(bundle, state.now);
    let distrusting = bundles
        .iter()
        .filter(|(_, bundle)| bundle.as_ref().is_some_and(distrusts));
    let distrusting: Vec<_> = distrusting.map(|(name, _)| name.clone()).collect();
    if let Some(first) = distrusting.first() {
        let mut configurations = own_configurations(state).into_iter().flatten();
        let writer = configurations.find_map(|configuration| bundle_writer(configuration, first));
        let writer = writer.map_or_else(String::new, |writer| format!("; {writer} has written it"));
        let webhooks = some(&distrusting);
        findings.failure(
            format!("the caBundle of {webhooks} does not lead to the certificate{writer}"),
            "only taskgate, or cert-manager's CA injector, may write caBundle: omit it from what you apply",
        );
    }
    if findings.is_clean() && !bundles.is_empty() {
        let message = format!("all {} webhooks trust the certificate", bundles.len());
        findings.ok(message);
    }
}

/// The field manager that wrote the CA bundle of `webhook`.
fn bundle_writer(configuration: &Value, webhook: &str) -> Option<String> {
    let key = format!("k:{{\"name\":\"{webhook}\"}}");
    let mut entries = list(configuration, "/metadata/managedFields").iter();
    let entry = entries.rfind(|entry| {
        let fields = &entry["fieldsV1"]["f:webhooks"][&key]["f:clientConfig"];
        fields.get("f:caBundle").is_some()
    });
    let manager = text(entry?, "/manager");
    (!manager.is_empty()).then(|| format!("{manager} ({})", name_of(configuration)))
}
