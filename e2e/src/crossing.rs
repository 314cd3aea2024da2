//! Plays kube-proxy: the API server sends what it has for the cluster's network through here, and addresses of Services lead to
//! processes on loopback. So webhooks are called through their Service, with its name in the certificate, as in a real cluster.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// The configuration of the API server, by the name under which it is found.
pub(crate) const EGRESS_FILE: &str = "egress.yaml";

/// Where the addresses of Services lead.
type Routes = Arc<Mutex<HashMap<String, Vec<SocketAddr>>>>;

/// The connection from API servers into the network of the cluster. It lives as long as the program, in threads of its own: tests
/// have a runtime each.
#[derive(Clone, Debug)]
pub struct Crossing {
    /// Of an abstract socket: it is no file, so nothing is left of it. Over TCP the API server wants TLS to its proxy.
    name: String,
    routes: Routes,
}

impl Crossing {
    /// Starts it.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start() -> io::Result<Self> {
        let name = format!("taskgate-crossing-{}-{:x}", std::process::id(), rand::random::<u64>());
        let listener = UnixListener::bind_addr(&UnixAddr::from_abstract_name(&name)?)?;
        let routes = Routes::default();
        let shared = Arc::clone(&routes);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let routes = Arc::clone(&shared);
                // A side that gives up closes the connection, which the other side sees.
                thread::spawn(move || drop(cross(&client, &routes)));
            }
        });
        Ok(Self { name, routes })
    }

    /// What the API server is told, with `--egress-selector-config-file`.
    pub fn configuration(&self) -> String {
        format!(
            "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n- name: cluster\n  \
             connection:\n    proxyProtocol: HTTPConnect\n    transport:\n      uds: {{udsName: \"@{}\"}}\n",
            self.name
        )
    }

    /// From now on `service`, as `address:port`, leads to `backends`, to the first that answers.
    pub fn lead(&self, service: String, backends: Vec<SocketAddr>) {
        self.routes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(service, backends);
    }
}

/// One `CONNECT`.
fn cross(client: &UnixStream, routes: &Routes) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let target = request.split(' ').nth(1).unwrap_or_default();
    let known = routes
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(target)
        .cloned();
    let backends = known.unwrap_or_else(|| target.parse().into_iter().collect());
    let Some(server) = backends.iter().find_map(|backend| TcpStream::connect(backend).ok()) else {
        return (&*client).write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n");
    };
    (&*client).write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut up, mut down) = (server.try_clone()?, server);
    let back = client.try_clone()?;
    let answering = thread::spawn(move || {
        let copied = io::copy(&mut down, &mut &back);
        drop(back.shutdown(Shutdown::Both));
        copied
    });
    let sent = io::copy(&mut reader, &mut up);
    drop(up.shutdown(Shutdown::Write));
    drop(answering.join());
    sent.map(drop)
}
