//! The names of an installation's objects, unless its flags or the chart's values change them.

/// The Service, and the prefix of everything else.
pub(crate) const NAME: &str = "taskgate";
/// The namespace.
pub(crate) const NAMESPACE: &str = "taskgate-system";
/// The Lease of the replicas.
pub(crate) const LEASE: &str = "taskgate-controller";
/// The Secret with the self-signed certificate.
pub(crate) const CERTIFICATE: &str = "taskgate-serving-cert";
/// The Secret with the certificate of cert-manager.
pub(crate) const ISSUED: &str = "taskgate-tls";
