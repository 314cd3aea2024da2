//! What a Service is to several replicas: one address before them that follows their readiness.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::Gate;
use crate::metrics::get_text;

/// Between two looks at a replica's readiness; a kubelet takes seconds.
const PROBE_EVERY: Duration = Duration::from_millis(100);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// A TCP balancer on loopback. New connections go in turn to the replicas that are ready, or that were a moment ago; a replica
/// that cannot be reached is passed over until it is ready again, or, with one try, costs the connection as it does behind a
/// Service. Connections that are open stay where they are.
#[derive(Debug)]
pub struct Balancer {
    url: String,
    replicas: Arc<Mutex<Vec<Replica>>>,
    accepting: AbortHandle,
}

#[derive(Clone, Debug)]
struct Replica {
    address: String,
    ready: Arc<AtomicBool>,
    probing: AbortHandle,
}

impl Balancer {
    /// Listens on a free port, with no replica yet. It belongs to the runtime it is started in.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start() -> anyhow::Result<Self> {
        Self::with_tries(usize::MAX).await
    }

    /// The same, but only readiness tells it whom to pass over.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn with_one_try() -> anyhow::Result<Self> {
        Self::with_tries(1).await
    }

    async fn with_tries(tries: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], crate::free_port()?))).await?;
        let url = format!("https://{}", listener.local_addr()?);
        let replicas = Arc::new(Mutex::new(Vec::new()));
        let accepting = tokio::spawn(accept(listener, replicas.clone(), tries)).abort_handle();
        Ok(Self {
            url,
            replicas,
            accepting,
        })
    }

    /// Where the API server is to call: `https://127.0.0.1:port`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends connections to `gate` as well, while it is ready.
    pub fn add(&self, gate: &Gate) {
        let ready = Arc::new(AtomicBool::new(false));
        let probing = tokio::spawn(probe(gate.admin_url("/readyz"), ready.clone())).abort_handle();
        let address = address(gate);
        self.replicas().push(Replica {
            address,
            ready,
            probing,
        });
    }

    /// Sends no more connections to `gate`.
    pub fn remove(&self, gate: &Gate) {
        let address = address(gate);
        self.replicas().retain(|replica| {
            let stays = replica.address != address;
            if !stays {
                replica.probing.abort();
            }
            stays
        });
    }

    /// How many replicas get new connections.
    pub fn ready(&self) -> usize {
        let replicas = self.replicas();
        replicas.iter().filter(|replica| replica.is_ready()).count()
    }

    fn replicas(&self) -> std::sync::MutexGuard<'_, Vec<Replica>> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.accepting.abort();
        for replica in self.replicas().iter() {
            replica.probing.abort();
        }
    }
}

impl Replica {
    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}

fn address(gate: &Gate) -> String {
    gate.url().trim_start_matches("https://").to_owned()
}

async fn probe(url: String, ready: Arc<AtomicBool>) {
    loop {
        let answer = timeout(PROBE_TIMEOUT, get_text(&url)).await;
        ready.store(matches!(answer, Ok(Ok(_))), Ordering::Relaxed);
        sleep(PROBE_EVERY).await;
    }
}

async fn accept(listener: TcpListener, replicas: Arc<Mutex<Vec<Replica>>>, tries: usize) {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((mut client, _)) = accepted else { continue };
        let mut ready = replicas.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ready.retain(Replica::is_ready);
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        connections.spawn(async move {
            for offset in 0..ready.len().min(tries) {
                let replica = &ready[(turn + offset) % ready.len()];
                if let Ok(mut server) = TcpStream::connect(&replica.address).await {
                    // How a connection ends is for its two ends to tell.
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                    return;
                }
                if tries > 1 {
                    replica.ready.store(false, Ordering::Relaxed);
                }
            }
        });
    }
}
