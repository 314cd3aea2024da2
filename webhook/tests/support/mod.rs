//! A real server on a real TLS socket, over a fixed cluster.

#![allow(dead_code, reason = "each test crate uses another part of it")]
#![allow(clippy::panic, reason = "one namespace of the cluster panics")]

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use rustls::{ClientConfig, crypto::ring, pki_types::ServerName};
use serde_json::{Value, json};
use taskgate_api::{
    TaskPolicySpec, WorkItem, WorkItemSpec, WorkItemStatus,
    metadata::{Metadata, Owner},
};
use taskgate_certs::{Lifetimes, Resolver, ServingCertificate, issue_all};
use taskgate_policy::{ItemIdentity, Policy, PolicySet, SpawnerInfo, Workspace};
use taskgate_webhook::{
    ClusterContext, ClusterReadError, ItemState, Lifecycle, Listener, NamespaceLabels, ReviewedTask, ServerLimits,
    ServerMetrics, ShutdownConfig, router,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Namespaces whose labels cannot be read.
pub(crate) const SLOW: &str = "slow";
pub(crate) const PANICKING: &str = "panicking";
pub(crate) const UNREADABLE: &str = "unreadable";

/// A cluster whose content the test sets. In the namespaces above, reading labels fails in its own way.
#[derive(Default)]
pub(crate) struct FixedCluster {
    pub(crate) policies: Vec<Policy>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) owner_task: Option<Value>,
    pub(crate) spawner: Option<SpawnerInfo>,
    pub(crate) work_item: Option<WorkItemStatus>,
    pub(crate) starting: bool,
    pub(crate) set: Arc<PolicySet>,
}

impl FixedCluster {
    /// One policy `agents` in namespace `team`, as YAML.
    pub(crate) fn policy(spec: &str) -> anyhow::Result<Self> {
        let spec: TaskPolicySpec = serde_saphyr::from_str(spec)?;
        let policy = Policy::namespaced("team", "agents", &spec).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        Ok(Self {
            policies: vec![policy],
            ..Self::default()
        })
    }

    pub(crate) fn finish(mut self) -> Arc<Self> {
        // Without any policy no input would be read.
        let unrelated = Policy::namespaced("elsewhere", "unrelated", &TaskPolicySpec::default());
        let unrelated = unrelated.expect("an empty policy compiles");
        self.set = Arc::new(PolicySet::new(self.policies.iter().cloned().chain([unrelated])));
        Arc::new(self)
    }
}

impl FixedCluster {
    fn item(&self) -> ItemState {
        let work_item = self.work_item.clone().map(|status| {
            let spec = WorkItemSpec {
                key: "fixer/42".to_owned(),
                item: "42".to_owned(),
                spawner: None,
            };
            let mut work_item = WorkItem::new("item", spec);
            work_item.status = Some(status);
            Arc::new(work_item)
        });
        ItemState { work_item, tasks: None }
    }
}

impl ClusterContext for FixedCluster {
    fn is_ready(&self) -> bool {
        !self.starting
    }

    fn policies(&self) -> Arc<PolicySet> {
        self.set.clone()
    }

    async fn namespace_labels(&self, namespace: &str) -> Result<NamespaceLabels, ClusterReadError> {
        match namespace {
            SLOW => std::future::pending().await,
            PANICKING => panic!("as the test wants it"),
            UNREADABLE => Err(ClusterReadError {
                kind: "Namespace",
                namespace: String::new(),
                name: namespace.to_owned(),
                reason: "the API server is unavailable".to_owned(),
                source: None,
            }),
            _ => Ok(Arc::new(self.labels.clone())),
        }
    }

    async fn owner_task(&self, _: &str, owner: &Owner<'_>) -> Result<Option<Value>, ClusterReadError> {
        let same = |task: &&Value| Metadata::of(task).uid() == Some(owner.uid);
        Ok(self.owner_task.as_ref().filter(same).cloned())
    }

    async fn spawner(&self, _: &str, _: &str) -> Result<Option<Arc<SpawnerInfo>>, ClusterReadError> {
        Ok(self.spawner.clone().map(Arc::new))
    }

    async fn workspace(&self, _: &str, _: &str) -> Workspace {
        Workspace::Unknown
    }

    fn known_item(&self, _: &ReviewedTask<'_>, _: &ItemIdentity) -> ItemState {
        self.item()
    }

    async fn stored_item(&self, _: &ReviewedTask<'_>, _: &ItemIdentity) -> Result<ItemState, ClusterReadError> {
        Ok(self.item())
    }
}

/// A running server, and what is needed to dial it.
pub(crate) struct RunningServer {
    pub(crate) address: SocketAddr,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) task: JoinHandle<()>,
    registry: Registry,
}

/// Serves `cluster` within `limits`.
pub(crate) async fn serve(cluster: FixedCluster, limits: ServerLimits) -> anyhow::Result<RunningServer> {
    let data = issue_all(&["127.0.0.1".parse()?], Lifetimes::default(), Timestamp::now())?;
    let resolver = Resolver::new();
    resolver.serve(ServingCertificate::try_from(&data)?);
    let mut registry = Registry::with_prefix("taskgate");
    let metrics = ServerMetrics::register(&mut registry);
    let lifecycle = Lifecycle::new();
    let routes = router(cluster.finish(), &limits, metrics.clone());
    let tls = resolver.server_config(&[b"http/1.1"], None);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::tls(any, tls, routes, &limits, metrics, lifecycle.clone()).await?;
    Ok(RunningServer {
        address: listener.address(),
        lifecycle,
        resolver,
        task: tokio::spawn(listener.run(Duration::from_secs(2))),
        registry,
    })
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RunningServer {
    /// A TLS connection that offers `alpn`.
    pub(crate) async fn dial(&self, alpn: &[u8]) -> anyhow::Result<TlsStream<TcpStream>> {
        self.dial_from(Ipv4Addr::LOCALHOST, alpn).await
    }

    /// The same, from another address of the loopback network.
    pub(crate) async fn dial_from(&self, source: Ipv4Addr, alpn: &[u8]) -> anyhow::Result<TlsStream<TcpStream>> {
        let bundle = self.resolver.bundle().borrow().clone().context("a bundle")?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(bundle.roots()?)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((source, 0)))?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1")?;
        Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
    }

    pub(crate) async fn http1(&self) -> anyhow::Result<Http1> {
        self.http1_from(Ipv4Addr::LOCALHOST).await
    }

    pub(crate) async fn http1_from(&self, source: Ipv4Addr) -> anyhow::Result<Http1> {
        let io = TokioIo::new(self.dial_from(source, b"http/1.1").await?);
        let (sender, connection) = http1::handshake(io).await?;
        let connection = tokio::spawn(connection);
        Ok(Http1 { sender, connection })
    }

    /// The answer to one review on a connection of its own.
    pub(crate) async fn post(&self, target: &str, body: impl Into<Bytes>) -> anyhow::Result<HttpResponse> {
        self.http1().await?.post(target, body).await
    }

    /// The value of the metric line that starts with `series`, such as `taskgate_x_total{cause="busy"}`.
    pub(crate) fn metric(&self, series: &str) -> anyhow::Result<f64> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        Ok(line.map(str::parse).transpose()?.unwrap_or_default())
    }
}

/// A kept HTTP/1.1 connection.
pub(crate) struct Http1 {
    pub(crate) sender: http1::SendRequest<Full<Bytes>>,
    pub(crate) connection: JoinHandle<hyper::Result<()>>,
}

impl Http1 {
    pub(crate) async fn post(&mut self, target: &str, body: impl Into<Bytes>) -> anyhow::Result<HttpResponse> {
        self.send(request(target, body)?).await
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<HttpResponse> {
        self.sender.ready().await?;
        HttpResponse::of(self.sender.send_request(request).await?).await
    }
}

/// An HTTP response.
#[derive(Debug)]
pub(crate) struct HttpResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl HttpResponse {
    pub(crate) async fn of(response: http::Response<hyper::body::Incoming>) -> anyhow::Result<Self> {
        let (parts, body) = response.into_parts();
        Ok(Self {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await?.to_bytes(),
        })
    }

    pub(crate) fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("{self:?}"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub(crate) fn request(target: &str, body: impl Into<Bytes>) -> anyhow::Result<Request<Full<Bytes>>> {
    Ok(Request::builder()
        .method(Method::POST)
        .uri(format!("https://127.0.0.1{target}"))
        .header(header::HOST, "127.0.0.1")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body.into()))?)
}

/// The review of a Task that is created in `namespace`.
pub(crate) fn task_review(namespace: &str) -> Value {
    review(
        &json!({"group": "kelos.dev", "version": "v1alpha2", "kind": "Task"}),
        namespace,
        &task(namespace),
    )
}

pub(crate) fn task(namespace: &str) -> Value {
    json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Task",
        "metadata": {"name": "fixer-42", "namespace": namespace, "uid": "task-uid",
            "labels": {"kelos.dev/taskspawner": "fixer"}},
        "spec": {"worker": {"type": "claude-code"}, "prompt": "Fix it."},
    })
}

/// The Job that Kelos makes for [`task`].
pub(crate) fn job(namespace: &str) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "fixer-42", "namespace": namespace, "labels": {"kelos.dev/task": "fixer-42"},
            "ownerReferences": [{"apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "name": "fixer-42",
                "uid": "task-uid", "controller": true}]},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "kelos-agent"}]}}},
    })
}

pub(crate) fn review(kind: &Value, namespace: &str, object: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "kind": kind, "operation": "CREATE",
            "name": object["metadata"]["name"], "namespace": namespace,
            "userInfo": {"username": "system:serviceaccount:kelos-system:kelos-spawner", "groups": ["a", "b"]},
            "object": object, "oldObject": null, "dryRun": false,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        },
    })
}

/// Short times, for tests that wait for the shutdown.
pub(crate) fn shutdown() -> ShutdownConfig {
    ShutdownConfig {
        lame_duck: Duration::from_secs(2),
        quiet: Duration::from_millis(300),
        drain: Duration::from_secs(2),
    }
}
