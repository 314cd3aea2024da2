//! Kubeconfig files: how kubectl, a component or taskgate itself reaches the API server.

use std::path::Path;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::pki::Pair;

/// An identity at the API server.
pub(crate) enum Identity<'a> {
    /// By client certificate.
    Certificate(&'a Pair),
    /// By bearer token.
    Token(&'a str),
    /// The admin, acting as another user.
    Impersonated {
        admin: &'a Pair,
        user: &'a str,
        groups: &'a [&'a str],
    },
}

impl Identity<'_> {
    fn user(&self) -> Value {
        let mut user = match self {
            Self::Token(token) => return json!({"token": token}),
            Self::Certificate(pair) | Self::Impersonated { admin: pair, .. } => json!({
                "client-certificate-data": base64(&pair.cert),
                "client-key-data": base64(&pair.key),
            }),
        };
        if let Self::Impersonated { user: name, groups, .. } = self {
            user["as"] = json!(name);
            user["as-groups"] = json!(groups);
        }
        user
    }
}

/// A self-contained kubeconfig; JSON, which is YAML too.
pub(crate) fn kubeconfig(server: &str, ca: &str, identity: &Identity<'_>) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "e2e",
        "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "e2e"}}],
        "clusters": [{"name": "e2e", "cluster": {
            "server": server,
            "certificate-authority-data": base64(ca),
        }}],
        "users": [{"name": "e2e", "user": identity.user()}],
    })
}

/// Writes a kubeconfig where its reader will find it, whole at any time: another test may read it meanwhile.
pub(crate) fn write(path: &Path, kubeconfig: &Value) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(kubeconfig)?;
    let new = path.with_extension(format!("{:08x}", rand::random::<u32>()));
    std::fs::write(&new, text)
        .and_then(|()| std::fs::rename(&new, path))
        .with_context(|| format!("writing {}", path.display()))
}

/// The same for a client in this process.
pub(crate) async fn client_config(kubeconfig: Value) -> anyhow::Result<kube::Config> {
    let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // An invisible retry would hide the server's first answer from a test.
    config.default_retry = false;
    Ok(config)
}

fn base64(text: &str) -> String {
    let bytes = k8s_openapi::ByteString(text.as_bytes().to_vec());
    match serde_json::to_value(bytes) {
        Ok(Value::String(encoded)) => encoded,
        _ => unreachable!("a ByteString serializes to a base64 string"),
    }
}
