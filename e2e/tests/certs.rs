//! Sources of the serving certificate: the real cert-manager, files as a kubelet mounts them, taskgate itself; switching from one to
//! another; and bad certificates.

#[path = "certs/bad.rs"]
mod bad;
#[path = "certs/clients.rs"]
mod clients;
#[path = "certs/cluster.rs"]
mod cluster;
#[path = "certs/files.rs"]
mod files;
#[path = "certs/managed.rs"]
mod managed;
#[path = "certs/shipped.rs"]
mod shipped;
#[path = "certs/support.rs"]
mod support;
#[path = "certs/switching.rs"]
mod switching;
