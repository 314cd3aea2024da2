//! Where the serving certificate comes from: the real cert-manager, files as a kubelet mounts them, taskgate itself, and from one
//! to the other; and what bad ones come to.

#[path = "certs/bad.rs"]
mod bad;
#[path = "certs/clients.rs"]
mod clients;
#[path = "certs/files.rs"]
mod files;
#[path = "certs/managed.rs"]
mod managed;
#[path = "certs/shipped.rs"]
mod shipped;
#[path = "certs/switching.rs"]
mod switching;
#[path = "certs/world.rs"]
mod world;
