//! Plays the kubelet: runs what the pods of a Deployment, or of a Job, would run. Arguments, environment and service account are
//! those of the object as it is stored; only the addresses differ, as they do from pod to pod.

use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, PodSpec, Service};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::process::Command;

use crate::crossing::Crossing;
use crate::gate::binary;
use crate::{ContainerRoot, ControlPlane, Metrics, PATIENCE, Process, ProcessSpec, eventually, free_port, scrape};

/// The pods of a Deployment of taskgate, running. Dropping them ends them.
#[derive(Debug)]
pub struct Pods {
    processes: Vec<Process>,
    admin: Vec<String>,
}

impl Pods {
    /// Starts as many as the Deployment `namespace`/`name` wants, waits until they are ready, and lets the Service of its name
    /// lead to them.
    ///
    /// # Errors
    /// If the Deployment has no pods (Pod Security refuses them, say), or one does not get ready.
    pub async fn start(cp: &ControlPlane, crossing: &Crossing, namespace: &str, name: &str) -> anyhow::Result<Self> {
        Self::start_in(cp, crossing, namespace, name, None).await
    }

    /// [`Pods::start`] with the program of an image in its own root, in place of the one that was built.
    ///
    /// # Errors
    /// As [`Pods::start`].
    pub async fn start_in(
        cp: &ControlPlane,
        crossing: &Crossing,
        namespace: &str,
        name: &str,
        root: Option<&ContainerRoot>,
    ) -> anyhow::Result<Self> {
        let deployments = Api::<Deployment>::namespaced(cp.client(), namespace);
        let deployment = deployments.get(name).await?;
        let spec = deployment.spec.context("a Deployment has a spec")?;
        let wanted = usize::try_from(spec.replicas.unwrap_or(1))?;
        let labels = spec.selector.match_labels.unwrap_or_default();
        let pod = spec.template.spec.context("a Deployment has a pod template")?;
        // Not those of an older template, which the Deployment is about to delete.
        let of_the_template = |found: &Pod| {
            let containers = found.spec.as_ref().map(|spec| &spec.containers);
            containers.is_some_and(|found| {
                found
                    .iter()
                    .map(|one| &one.args)
                    .eq(pod.containers.iter().map(|one| &one.args))
            })
        };
        let selector: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let stored = eventually("the Deployment has its pods", PATIENCE, || async {
            let pods = Api::<Pod>::namespaced(cp.client(), namespace);
            let mut found = pods
                .list(&ListParams::default().labels(&selector.join(",")))
                .await?
                .items;
            found.retain(|pod| pod.metadata.deletion_timestamp.is_none() && of_the_template(pod));
            ensure!(found.len() >= wanted, "{} of {wanted} pods", found.len());
            Ok(found)
        })
        .await?;
        let mut pods = Self {
            processes: Vec::new(),
            admin: Vec::new(),
        };
        let mut backends: Vec<SocketAddr> = Vec::new();
        for stored in stored.iter().take(wanted) {
            let (listen, admin) = (free_port()?, free_port()?);
            let spec = process(cp, namespace, &stored.name_any(), &pod, root)
                .await?
                .env("TASKGATE_LISTEN", format!("127.0.0.1:{listen}"))
                .env("TASKGATE_ADMIN_LISTEN", format!("127.0.0.1:{admin}"))
                .ready_at(format!("http://127.0.0.1:{admin}/readyz"));
            pods.processes.push(cp.spawn(spec).await?);
            // Now its readiness probe would say so.
            let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
            Api::<Pod>::namespaced(cp.client(), namespace)
                .patch_status(&stored.name_any(), &PatchParams::default(), &Patch::Strategic(ready))
                .await?;
            pods.admin.push(format!("http://127.0.0.1:{admin}"));
            backends.push(format!("127.0.0.1:{listen}").parse()?);
        }
        let service = Api::<Service>::namespaced(cp.client(), namespace).get(name).await?;
        let service = service.spec.context("a Service has a spec")?;
        let port = service
            .ports
            .as_deref()
            .and_then(|ports| ports.first())
            .context("it has a port")?;
        let address = service.cluster_ip.context("it has an address")?;
        crossing.lead(format!("{address}:{}", port.port), backends);
        Ok(pods)
    }

    /// Their processes.
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// What the first of them counts.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn metrics(&self) -> anyhow::Result<Metrics> {
        scrape(&format!("{}/metrics", self.admin[0])).await
    }
}

/// Runs the pod that the Job `namespace`/`name` wants, once the Job is there, and writes down how it ended.
///
/// # Errors
/// If the Job does not come, or the program fails; with what it printed.
pub async fn run_job(cp: &ControlPlane, namespace: &str, name: &str) -> anyhow::Result<String> {
    let pods = Api::<Pod>::namespaced(cp.client(), namespace);
    let label = format!("batch.kubernetes.io/job-name={name}");
    let pod = eventually(format!("Job {name} has its pod"), PATIENCE, || async {
        let found = pods.list(&ListParams::default().labels(&label)).await?.items;
        let jobs = Api::<Job>::namespaced(cp.client(), namespace);
        let job = jobs.get_opt(name).await?.map(|job| job.status);
        found
            .into_iter()
            .next()
            .with_context(|| format!("no pod; the Job says {job:?}"))
    })
    .await?;
    let name = pod.name_any();
    let spec = pod.spec.clone().context("a pod has a spec")?;
    let spec = process(cp, namespace, &name, &spec, None).await?;
    let output = Command::new(&spec.argv[0])
        .args(&spec.argv[1..])
        .envs(&spec.env)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let phase = if output.status.success() { "Succeeded" } else { "Failed" };
    let status = Patch::Merge(json!({"status": {"phase": phase}}));
    pods.patch_status(&name, &PatchParams::default(), &status).await?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{} of {name}: {printed}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(printed)
}

/// What the first container of `pod` runs.
async fn process(
    cp: &ControlPlane,
    namespace: &str,
    name: &str,
    pod: &PodSpec,
    root: Option<&ContainerRoot>,
) -> anyhow::Result<ProcessSpec> {
    let account = pod.service_account_name.as_deref().unwrap_or("default");
    let container: &Container = pod.containers.first().context("a pod has a container")?;
    let mut args = container.args.clone().unwrap_or_default();
    // The pods share one network here; the environment gives each its own addresses.
    args.retain(|arg| !arg.starts_with("--listen=") && !arg.starts_with("--admin-listen="));
    let spec = if let Some(root) = root {
        root.process(cp, name, [namespace, account], args).await?
    } else {
        let kubeconfig = cp.kubeconfig_of_service_account(namespace, account).await?;
        ProcessSpec::new(name, binary("taskgate")?)
            .args(args)
            // `kubectl` and the commands look here, the server there.
            .env("KUBECONFIG", &kubeconfig)
            .env("TASKGATE_KUBECONFIG", &kubeconfig)
    };
    let spec = spec.env("HOSTNAME", name);
    let env = container.env.iter().flatten();
    Ok(env.fold(spec, |spec, entry| spec.env(&entry.name, value(entry, namespace, name))))
}

/// The value of an environment variable, given or from the pod's own metadata.
fn value(entry: &EnvVar, namespace: &str, name: &str) -> String {
    let field = entry.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
    match field.map(|field| field.field_path.as_str()) {
        Some("metadata.namespace") => namespace.to_owned(),
        Some("metadata.name") => name.to_owned(),
        _ => entry.value.clone().unwrap_or_default(),
    }
}
