//! The serving certificate, and whether the API server trusts it.

use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde_json::Value;
use taskgate_certs::{CertificateChain, San, Validity};

use super::{list, name_of, registration, spoken, text, unseen};
use crate::{
    args::CertMode,
    commands::doctor::{
        facts::{Certificate, Facts, Installation, Unseen},
        finding::{Check, Finding},
    },
};

/// A certificate is replaced when less than a third of its life is left (C1): with less than a quarter, nobody has.
const OVERDUE: i128 = 4;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let bundles = bundles(facts);
    let Some(secret) = &facts.installation.secret else {
        let told = Finding::ok(
            Check::Certificate,
            "from files in the pods, which are not looked at; whether they are served is told by answers",
        );
        return [vec![told], bundle_alone(&bundles)].concat();
    };
    let certificate = match &facts.certificate {
        Ok(certificate) => certificate,
        Err(Unseen::Absent) => return vec![none(facts, secret, "there is no Secret")],
        Err(refused) => {
            let told = unseen(Check::Certificate, &format!("Secret {secret}"), refused);
            return [vec![told], bundle_alone(&bundles)].concat();
        }
    };
    let Some(chain) = certificate.chain.as_deref().and_then(CertificateChain::from_pem) else {
        return vec![none(facts, secret, "there is no certificate in Secret")];
    };
    [
        own(facts, secret, &chain, certificate),
        trusted(facts, &chain, &bundles),
    ]
    .concat()
}

fn none(facts: &Facts, secret: &str, what: &str) -> Finding {
    let advice = match facts.installation.mode {
        CertMode::SelfSigned => "taskgate makes it when it starts: see whether its pods run, and their log",
        CertMode::CertManager | CertMode::Files => "see what cert-manager says: kubectl describe certificate",
    };
    let namespace = &facts.installation.namespace;
    Finding::failure(Check::Certificate, format!("{what} {namespace}/{secret}"), advice)
}

/// The certificate itself: its name, its life, and that of its authority.
fn own(facts: &Facts, secret: &str, chain: &CertificateChain, certificate: &Certificate) -> Vec<Finding> {
    let now = facts.now;
    let mut findings = Vec::new();
    let mut fail = |message: String, advice: &str| findings.push(Finding::failure(Check::Certificate, message, advice));
    let renew = match facts.installation.mode {
        CertMode::SelfSigned => "taskgate replaces it by itself: see the log of its pods, and rights below",
        CertMode::CertManager | CertMode::Files => "see what cert-manager says: kubectl describe certificate",
    };
    let dialled = dialled(facts);
    if let Some(name) = dialled.filter(|name| !chain.is_for(name)) {
        fail(
            format!("{secret} is not made out to {name}, which the API server calls"),
            renew,
        );
    }
    let authority = certificate.authorities.as_deref().and_then(Validity::of);
    let lives = [
        ("the certificate", Some(chain.validity())),
        ("its authority", authority),
    ];
    for (what, life) in lives {
        let Some(life) = life else {
            continue;
        };
        if now < life.from {
            fail(format!("{what} in {secret} is valid from {} on only", life.from), renew);
        } else if now >= life.until {
            fail(
                format!(
                    "{what} in {secret} expired {} ago",
                    spoken(now.duration_since(life.until))
                ),
                renew,
            );
        } else if life.is_nearly_over(now, OVERDUE) {
            let left = spoken(life.left(now));
            fail(
                format!("{what} in {secret} ends in {left}, and was to be replaced before"),
                renew,
            );
        }
    }
    if findings.is_empty() {
        let left = |life: Validity| spoken(life.left(now));
        let authority = authority.map_or_else(String::new, |life| format!(", its authority another {}", left(life)));
        findings.push(Finding::ok(
            Check::Certificate,
            format!("{secret}: another {}{authority}", left(chain.validity())),
        ));
    }
    findings
}

/// The name that the API server dials.
fn dialled(facts: &Facts) -> Option<San> {
    let found = registration::ours(facts).into_iter().flatten().next();
    let first = found.and_then(|found| list(found, "/webhooks").first());
    let url = first.and_then(registration::base);
    if let Some(url) = url {
        let host = url.trim_start_matches("https://");
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        return host.trim_matches(['[', ']']).parse().ok();
    }
    let Installation { service, namespace, .. } = &facts.installation;
    San::of_service(service, namespace).ok()?.into_iter().next()
}

/// Each webhook of ours, as its configuration and it are called, with what the API server trusts there.
fn bundles(facts: &Facts) -> Vec<(String, Option<Vec<u8>>)> {
    let configurations = registration::ours(facts).into_iter().flatten();
    configurations
        .flat_map(|found| list(found, "/webhooks"))
        .map(|webhook| {
            let bundle = webhook
                .pointer("/clientConfig/caBundle")
                .filter(|bundle| bundle.as_str().is_some_and(|text| !text.is_empty()));
            let bundle = bundle.and_then(|bundle| serde_json::from_value::<ByteString>(bundle.clone()).ok());
            (text(webhook, "/name").to_owned(), bundle.map(|bundle| bundle.0))
        })
        .collect()
}

/// Where there is no certificate to hold a bundle against: whether there is one at all.
fn bundle_alone(bundles: &[(String, Option<Vec<u8>>)]) -> Vec<Finding> {
    let without: Vec<_> = bundles
        .iter()
        .filter(|(_, bundle)| bundle.is_none())
        .map(|(name, _)| name.clone())
        .collect();
    absent(&without).into_iter().collect()
}

fn absent(without: &[String]) -> Option<Finding> {
    (!without.is_empty()).then(|| {
        Finding::failure(
            Check::CaBundle,
            format!(
                "{} has no caBundle: the API server trusts nobody there",
                super::some(without)
            ),
            "who provides the certificate writes it: taskgate's pods, or cert-manager's CA injector; see their log",
        )
    })
}

fn trusted(facts: &Facts, chain: &CertificateChain, bundles: &[(String, Option<Vec<u8>>)]) -> Vec<Finding> {
    let now: Timestamp = facts.now;
    let mut findings = bundle_alone(bundles);
    let distrusting: Vec<_> = bundles
        .iter()
        .filter(|(_, bundle)| bundle.as_ref().is_some_and(|bundle| !chain.is_trusted_by(bundle, now)))
        .map(|(name, _)| name.clone())
        .collect();
    if let Some(first) = distrusting.first() {
        let mut configurations = registration::ours(facts).into_iter().flatten();
        let owner = configurations.find_map(|found| owner_of_bundle(found, first));
        let owner = owner.map_or_else(String::new, |owner| format!("; {owner} has written it"));
        findings.push(Finding::failure(
            Check::CaBundle,
            format!(
                "the caBundle of {} does not lead to the certificate{owner}",
                super::some(&distrusting)
            ),
            "let nobody but taskgate, or cert-manager's CA injector, write caBundle: leave it out of what you apply",
        ));
    }
    if findings.is_empty() && !bundles.is_empty() {
        findings.push(Finding::ok(
            Check::CaBundle,
            format!("all {} webhooks trust the certificate", bundles.len()),
        ));
    }
    findings
}

/// The field manager that the bundle of `webhook` comes from.
fn owner_of_bundle(configuration: &Value, webhook: &str) -> Option<String> {
    let key = format!("k:{{\"name\":\"{webhook}\"}}");
    let mut entries = list(configuration, "/metadata/managedFields").iter();
    let owner = entries.rfind(|entry| {
        let fields = &entry["fieldsV1"]["f:webhooks"][&key]["f:clientConfig"];
        fields.get("f:caBundle").is_some()
    });
    let owner = text(owner?, "/manager");
    (!owner.is_empty()).then(|| format!("{owner} ({})", name_of(configuration)))
}
