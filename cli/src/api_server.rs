//! The connection of `taskgate serve` to the API server. Each part of it repeats what failed by its own rules; below them nothing
//! is repeated, and nothing is waited for without end.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use http::{
    Request,
    header::{HeaderValue, USER_AGENT},
};
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::time::timeout;
use tower::{BoxError, service_fn};

/// How long an answer may take to begin. The API server itself gives up after 60 s; later than that there is nobody, and the
/// connection went away without a word.
const ANSWER: Duration = Duration::from_secs(65);

/// A client of the API server that the file `kubeconfig` names, or else the one that is found.
pub(crate) async fn connect(kubeconfig: Option<&Path>) -> Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("using {}", path.display()))?
        }
        None => Config::infer()
            .await
            .context("finding the API server: neither in a pod nor a kubeconfig")?,
    };
    // What audit logs call us, and what managed fields do.
    let agent = HeaderValue::from_static(concat!("taskgate/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    // A write that took effect and was answered with an error, sent again unseen, would be told that somebody else was
    // there before; and one that waits to be sent again may outlive the Lease.
    config.default_retry = false;
    let client = Client::try_from(config).context("preparing the connection to the API server")?;
    Ok(patient(client, ANSWER))
}

/// `client`, but an answer that does not begin within `patience` is none.
fn patient(client: Client, patience: Duration) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = service_fn(move |request: Request<Body>| {
        let client = client.clone();
        async move {
            let answer = timeout(patience, client.send(request)).await;
            answer.map_err(BoxError::from)?.map_err(BoxError::from)
        }
    });
    Client::new(service, namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;
    use k8s_openapi::api::core::v1::Namespace;
    use kube::Api;
    use std::future::pending;

    #[tokio::test]
    async fn who_does_not_answer_is_not_waited_for() {
        let silent = service_fn(|_: Request<Body>| pending::<Result<Response<Body>, BoxError>>());
        let client = patient(Client::new(silent, "default"), Duration::from_millis(1));
        let error = Api::<Namespace>::all(client).get("default").await.unwrap_err();
        assert!(matches!(error, kube::Error::Service(_)), "{error:?}");
    }
}
