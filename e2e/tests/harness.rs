//! The harness itself: what every other suite takes for granted.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, PostParams};
use taskgate_e2e::{ControlPlane, PATIENCE, await_object, eventually, never};

const JOB: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: one}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: agent, image: example.invalid/agent:1}]
";

#[tokio::test]
async fn a_job_gets_its_pod_from_the_controller_manager() -> anyhow::Result<()> {
    let cp = ControlPlane::shared().await?;
    let ns = cp.namespace("job").await?;
    ns.apply_yaml(JOB).await?;
    await_object(&ns.api::<Job>(), "one", "has an active pod", |job: &Job| {
        job.status
            .as_ref()
            .is_some_and(|status| status.active == Some(1))
    })
    .await?;
    Ok(())
}
