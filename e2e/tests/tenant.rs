//! A hostile tenant on the real API server, with rights in its own namespace, while another tenant works. taskgate runs under the
//! chart's memory limit, and in one process from the first attack to the last.

#[path = "tenant/counting.rs"]
mod counting;
#[path = "tenant/endpoint.rs"]
mod endpoint;
#[path = "tenant/rights.rs"]
mod rights;
#[path = "tenant/stored.rs"]
mod stored;
#[path = "tenant/support.rs"]
mod support;
#[path = "tenant/templates.rs"]
mod templates;
