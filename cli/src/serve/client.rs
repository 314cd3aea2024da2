//! The client of `taskgate serve`: whatever the process asks the API server goes through it. It compares the clocks, and logs when the
//! API server does not answer, once for all requests that fail meanwhile.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use http::{
    Request, Response,
    header::{HeaderValue, USER_AGENT},
};
use jiff::Timestamp;
use kube::{Client, client::Body};
use taskgate_cache::Clock;
use tokio::time::timeout;
use tower::{BoxError, service_fn};
use tracing::{debug, info};

use super::outage::OutageLog;
use crate::cluster::{config, date};

/// How long a response may take to begin. The API server itself gives up after 60 s.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(65);

/// How often the configuration is read again while requests fail.
const RELOAD_EVERY: Duration = Duration::from_secs(10);

/// The client. Its users retry by their own rules; the client itself retries nothing, and waits for no response without end. `clock`
/// observes the responses. If requests fail because the API server's CA was replaced, it reads the new one.
pub(super) async fn serve_client(kubeconfig: Option<&Path>, clock: &Clock) -> Result<Client> {
    let connection = Connection {
        kubeconfig: kubeconfig.map(ToOwned::to_owned),
        current: RwLock::new(connect(kubeconfig).await?),
        read_at: Mutex::new(Instant::now()),
    };
    Ok(observed(connection, clock, RESPONSE_TIMEOUT))
}

/// The CAs that the API server's certificate may lead to, in DER; `None`: those of the system.
type Roots = Option<Vec<Vec<u8>>>;

/// The connection to the API server.
struct Connection {
    kubeconfig: Option<PathBuf>,
    current: RwLock<(Client, Roots)>,
    /// When the configuration was read last.
    read_at: Mutex<Instant>,
}

impl Connection {
    fn client(&self) -> Client {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.0.clone()
    }

    /// Connects anew if the configuration names other CAs by now: the kubelet, or a user, replaces the file.
    async fn renew(&self) {
        {
            let mut read_at = self.read_at.lock().unwrap_or_else(PoisonError::into_inner);
            if read_at.elapsed() < RELOAD_EVERY {
                return;
            }
            *read_at = Instant::now();
        }
        match connect(self.kubeconfig.as_deref()).await {
            Ok(next) => {
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                if current.1 != next.1 {
                    info!("the CA of the API server was replaced");
                    *current = next;
                }
            }
            Err(error) => debug!(%error, "the configuration cannot be read again"),
        }
    }
}

/// A client by the configuration as it is now, and the CAs that it trusts.
async fn connect(kubeconfig: Option<&Path>) -> Result<(Client, Roots)> {
    let mut config = config(kubeconfig, None).await?;
    let roots = config.root_cert.clone();
    // The name in audit logs and managed fields.
    let agent = HeaderValue::from_static(concat!("taskgate/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    // A write that took effect but was answered with an error would conflict with itself when it is sent again; and a write that
    // waits for its retry may outlive the Lease.
    config.default_retry = false;
    let client = Client::try_from(config).context("preparing the connection to the API server")?;
    Ok((client, roots))
}

/// A client over `connection` that fails when a response does not begin within `limit`, and is observed by `clock` and an
/// [`OutageLog`].
fn observed(connection: Connection, clock: &Clock, limit: Duration) -> Client {
    let namespace = connection.client().default_namespace().to_owned();
    let (connection, clock, outages) = (Arc::new(connection), clock.clone(), OutageLog::default());
    let service = service_fn(move |request: Request<Body>| {
        let (connection, clock, outages) = (Arc::clone(&connection), clock.clone(), outages.clone());
        async move {
            let (sent, began) = (Timestamp::now(), Instant::now());
            let response = timeout(limit, connection.client().send(request)).await;
            let response = response.map_err(BoxError::from);
            let response = response.and_then(|response| response.map_err(BoxError::from));
            outages.observe(&response);
            let response: Response<_> = match response {
                Ok(response) => response,
                Err(error) => {
                    connection.renew().await;
                    return Err(error);
                }
            };
            // An error may be that of a proxy.
            if let Some(date) = date(response.headers()).filter(|_| response.status().is_success()) {
                clock.observe(sent, began.elapsed(), date);
            }
            Ok(response)
        }
    });
    Client::new(service, namespace)
}

#[cfg(test)]
mod tests {
    use http::header::DATE;
    use k8s_openapi::api::core::v1::Namespace;
    use kube::Api;
    use std::future::pending;

    use super::*;

    fn fixed(client: Client) -> Connection {
        Connection {
            kubeconfig: None,
            current: RwLock::new((client, None)),
            read_at: Mutex::new(Instant::now()),
        }
    }

    #[tokio::test]
    async fn a_request_without_a_response_times_out() {
        let silent = service_fn(|_: Request<Body>| pending::<Result<Response<Body>, BoxError>>());
        let client = Client::new(silent, "default");
        let client = observed(fixed(client), &Clock::default(), Duration::from_millis(1));
        let error = Api::<Namespace>::all(client).get("default").await.unwrap_err();
        assert!(matches!(error, kube::Error::Service(_)), "{error:?}");
    }

    #[tokio::test]
    async fn the_clock_is_compared_with_successful_responses_only() {
        for (status, skew) in [(200, true), (503, false)] {
            let answer = move |_: Request<Body>| async move {
                let response = Response::builder().status(status);
                let response = response.header(DATE, "Sun, 06 Nov 1994 08:49:37 GMT");
                Ok::<_, BoxError>(response.body(Body::from(b"{}".to_vec()))?)
            };
            let clock = Clock::default();
            let client = observed(
                fixed(Client::new(service_fn(answer), "default")),
                &clock,
                RESPONSE_TIMEOUT,
            );
            let request = Request::get("/version").body(Body::empty()).unwrap();
            client.send(request).await.unwrap();
            assert_eq!(!clock.skew().is_zero(), skew, "{status}");
        }
    }
}
