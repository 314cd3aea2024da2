//! Mutual TLS: the API server shows a certificate; a caller without one is not answered.

use std::path::Path;

use anyhow::{Context as _, ensure};
use kelos_standin::CRDS;
use kube::{Client, Config, client::Body};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;
use taskgate_e2e::{ControlPlane, Gate, PATIENCE, eventually};

use crate::support::{FAIL, await_answer, probe};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> anyhow::Result<Issuer> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// A client certificate of `authority` and its key.
fn client(authority: &Issuer, name: &str) -> anyhow::Result<(String, String)> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, authority)?.pem(), key.serialize_pem()))
}

/// The API server's configuration of docs/certificates.md, in `folder`; the file for its flag.
fn admission_configuration(folder: &Path, certificate: &str, key: &str) -> anyhow::Result<String> {
    let put = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text)?;
        anyhow::Ok(path.display().to_string())
    };
    let (certificate, key) = (put("client.crt", certificate)?, put("client.key", key)?);
    let user = json!({"client-certificate": certificate, "client-key": key});
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "users": [{"name": "*", "user": user}]});
    let kubeconfig = put("kubeconfig", &kubeconfig.to_string())?;
    let version = "apiserver.config.k8s.io/v1";
    let plugins = ["MutatingAdmissionWebhook", "ValidatingAdmissionWebhook"].map(|name| {
        json!({"name": name, "configuration": {
            "apiVersion": version, "kind": "WebhookAdmissionConfiguration", "kubeConfigFile": kubeconfig,
        }})
    });
    let configuration = json!({"apiVersion": version, "kind": "AdmissionConfiguration", "plugins": plugins});
    put("admission.yaml", &configuration.to_string())
}

/// What a caller other than the API server gets: the status of an answer, or the error of a handshake.
async fn call(gate: &Gate, identity: Option<&(String, String)>) -> anyhow::Result<Result<u16, String>> {
    let mut config = Config::new(gate.url().parse()?);
    config.accept_invalid_certs = true;
    if let Some((certificate, key)) = identity {
        let base64 = |pem: &str| {
            serde_json::to_value(k8s_openapi::ByteString(pem.as_bytes().to_vec()))
                .ok()
                .and_then(|value| value.as_str().map(ToOwned::to_owned))
        };
        config.auth_info.client_certificate_data = base64(certificate);
        config.auth_info.client_key_data = base64(key).map(Into::into);
    }
    let client = Client::try_from(config)?;
    let request = http::Request::post("/mutate/tasks").body(Body::empty())?;
    let answer = client.send(request).await;
    Ok(answer
        .map(|answer| answer.status().as_u16())
        .map_err(|error| format!("{error:?}")))
}

#[tokio::test]
async fn with_a_client_authority_the_api_server_alone_is_answered() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
    std::fs::create_dir_all(&folder)?;
    let (good, other) = (authority("callers")?, authority("others")?);
    let ca = folder.join("ca.crt");
    std::fs::write(&ca, good.pem())?;
    let (certificate, key) = client(&good, "kube-apiserver")?;
    let configuration = admission_configuration(&folder, &certificate, &key)?;
    let cp = ControlPlane::builder()
        .crds(CRDS)
        .apiserver_flag(format!("--admission-control-config-file={configuration}"))
        .start()
        .await?;
    let gate = Gate::builder()
        .registration_flag(FAIL)
        .serve_flag(format!("--client-ca={}", ca.display()))
        .serve_flag("--client-names=kube-apiserver")
        .start(&cp)
        .await?;
    let ns = cp.namespace("clients").await?;
    await_answer(&ns).await?;

    let none = call(&gate, None)
        .await?
        .err()
        .context("answered without a certificate")?;
    ensure!(none.contains("ertificateRequired"), "{none}");
    let refused = || async {
        let metrics = gate.metrics().await?;
        let cause = [("cause", "client_certificate")];
        anyhow::Ok(
            metrics
                .value("taskgate_connections_refused_total", &cause)
                .unwrap_or_default(),
        )
    };
    let before = refused().await?;
    for (authority, name) in [(&other, "kube-apiserver"), (&good, "system:node:worker-1")] {
        let answer = call(&gate, Some(&client(authority, name)?)).await?;
        ensure!(answer.is_err(), "{name} was answered with {answer:?}");
    }
    ensure!(refused().await? - before > 1.5, "it counts who was refused");
    let same = call(&gate, Some(&client(&good, "kube-apiserver")?)).await?;
    ensure!(same == Ok(415), "{same:?}");

    // Another authority: a client with a certificate of the old one is refused from the next connection on.
    std::fs::write(&ca, other.pem())?;
    eventually("the new authority counts", PATIENCE, || async {
        let answer = call(&gate, Some(&client(&other, "kube-apiserver")?)).await?;
        ensure!(answer == Ok(415), "{answer:?}");
        Ok(())
    })
    .await?;
    let answer = call(&gate, Some(&client(&good, "kube-apiserver")?)).await?;
    ensure!(answer.is_err(), "{answer:?}");
    // Garbage changes nothing. The API server's connection from before is kept.
    std::fs::write(&ca, "garbage")?;
    eventually("it is logged", PATIENCE, || async {
        ensure!(
            gate.process().log()?.contains("the client authority cannot be renewed"),
            "not yet"
        );
        Ok(())
    })
    .await?;
    let answer = call(&gate, Some(&client(&other, "kube-apiserver")?)).await?;
    ensure!(answer == Ok(415), "{answer:?}");
    std::fs::write(&ca, good.pem())?;
    eventually("the API server is answered", PATIENCE, || probe(&ns))
        .await
        .map(drop)
}
