//! A real Kubernetes control plane for tests, and what they share.
//!
//! [`ControlPlane`] is etcd, kube-apiserver and kube-controller-manager on free
//! loopback ports, in one temporary directory, watched by a supervisor: whatever
//! becomes of the test, no process and no directory is left. Beside it are the
//! sentences that scenarios are written in: [`eventually`], [`never()`],
//! [`await_object`], and witnesses of what happened: [`audit`], [`Metrics`],
//! [`ControlPlane::etcd_revision`].
//!
//! Called by the suites in `e2e/tests`, and by whatever else wants a cluster for a
//! minute. It may use any Kubernetes client crate. It knows taskgate as users do: as
//! a binary, started by [`Gate`].
//!
//! ```no_run
//! # async fn scenario() -> anyhow::Result<()> {
//! use k8s_openapi::api::batch::v1::Job;
//! use taskgate_e2e::{ControlPlane, await_object};
//!
//! let cp = ControlPlane::shared().await?;
//! let ns = cp.namespace("jobs").await?;
//! ns.apply_yaml("{apiVersion: batch/v1, kind: Job, …}").await?;
//! await_object(&ns.api::<Job>(), "a", "an active pod", |job| {
//!     job.status.as_ref().is_some_and(|status| status.active == Some(1))
//! })
//! .await?;
//! # Ok(())
//! # }
//! ```

mod access;
mod apply;
mod assets;
pub mod audit;
mod balancer;
mod builder;
mod certmanager;
mod components;
mod crds;
mod crossing;
mod explain;
mod fixture;
mod gate;
mod gomodule;
mod helm;
mod image;
mod kubeconfig;
mod kubectl;
mod kubelet;
mod kueue;
mod metrics;
mod namespace;
mod peer;
mod pki;
mod plane;
mod ports;
mod process;
mod process_spec;
mod revision;
mod shared;
mod size;
mod supervisor;
mod tenant;
mod victim;
mod wait;
mod wrong_clock;

pub use access::Access;
pub use assets::tool;
pub use audit::{Audit, AuditEvent, Marker};
pub use balancer::Balancer;
pub use builder::{Builder, Keep};
pub use certmanager::CertManager;
pub use crossing::Crossing;
pub use explain::suggested_command;
pub use fixture::{
    CODER, FOREIGN_FINALIZER, FOREMAN, Fixture, ForemanFixture, ForemanNamespace, KELOS, KelosBuilder, KelosFixture,
    KelosNamespace, PRIORITY_CLASS, QUEUE_NAME, TASKGATE, TASKGATE_AGENT, attempt_number, breaker, cluster_queue,
    condition, failures, github, job_of, merged, policy, resource, stuck, task, task_of_item, taskgate_requests,
};
pub use gate::{GATE_NAMESPACE, GATE_USER, Gate, GateBuilder, binary, chart_memory_limit, register, taskgate};
pub use image::{ContainerRoot, Image};
pub use kubectl::Output;
pub use kubelet::{Pods, run_job};
pub use kueue::{KUEUE_NAMESPACE, Kueue, KueueBuilder};
pub use metrics::{Metrics, scrape};
pub use namespace::Namespace;
pub use peer::Peer;
pub use plane::ControlPlane;
pub use ports::free_port;
pub use process::{Exit, Process};
pub use process_spec::ProcessSpec;
pub use shared::{Shared, SharedGate};
pub use size::{is_soak, seed};
pub use tenant::Tenant;
pub use tokio_rustls::client::TlsStream;
pub use victim::Victim;
pub use wait::{PATIENCE, await_gone, await_object, eventually, eventually_that, never};
