//! Installed as users install it, and gone again: kustomize and Helm on a real API server, under their own roles, upgrade and
//! uninstall in each order, what it says of itself, what `taskgate doctor` finds, and the documentation.

#[path = "install/chart.rs"]
mod chart;
#[path = "install/docs.rs"]
mod docs;
#[path = "install/doctor.rs"]
mod doctor;
#[path = "install/helm.rs"]
mod helm;
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
#[path = "install/uninstall.rs"]
mod uninstall;
#[path = "install/world.rs"]
mod world;
