//! Installed as users install it, and uninstalled: kustomize and Helm on a real API server, under their own roles, upgrade and
//! uninstall in each order, metrics and traces, `taskgate doctor`, and the documentation.

#[path = "install/chart.rs"]
mod chart;
#[path = "install/docs.rs"]
mod docs;
#[path = "install/doctor.rs"]
mod doctor;
#[path = "install/helm.rs"]
mod helm;
#[path = "install/image.rs"]
mod image;
#[path = "install/kustomize.rs"]
mod kustomize;
#[path = "install/limits.rs"]
mod limits;
#[path = "install/metrics.rs"]
mod metrics;
#[path = "install/rights.rs"]
mod rights;
#[path = "install/security.rs"]
mod security;
#[path = "install/support.rs"]
mod support;
#[path = "install/uninstall.rs"]
mod uninstall;
