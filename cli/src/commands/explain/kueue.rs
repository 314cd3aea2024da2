//! Whether Kueue blocks Jobs. While its webhook is unavailable, the API server refuses every Job in the namespaces that Kueue
//! manages, and Kelos does not report it.

use anyhow::Result;
use k8s_openapi::api::{apps::v1::Deployment, batch::v1::Job};
use kube::Api;
use serde_json::json;
use taskgate_api::kueue::ConfigRef;

use super::explanation::{Line, command};
use crate::cluster::{Connection, DryRun, api_error};

/// Kueue's Deployment, in its own manifests and its chart.
const DEPLOYMENT: &str = "kueue-controller-manager";
/// The API server's words before the name of a webhook that does not answer.
const FAILED_CALL: &str = "failed calling webhook \"";
/// Kueue's webhooks for Jobs.
const WEBHOOKS: [&str; 2] = ["mjob.kb.io", "vjob.kb.io"];

/// What is known about Kueue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KueueHealth {
    /// Nothing, or no problem.
    Unknown,
    /// The API server cannot call a webhook, and therefore refuses Jobs.
    Unreachable {
        webhook: String,
        /// The message of the API server.
        message: String,
    },
    /// It has no available replica.
    Down {
        /// The number of replicas in the spec.
        wanted: i32,
    },
}

impl KueueHealth {
    /// From the message of a refused Job.
    fn of_refusal(message: &str) -> Option<Self> {
        let (_, rest) = message.split_once(FAILED_CALL)?;
        let (webhook, _) = rest.split_once('"')?;
        Some(Self::Unreachable {
            webhook: webhook.to_owned(),
            message: message.to_owned(),
        })
    }

    /// From Kueue's Deployment.
    fn of_deployment(deployment: &Deployment) -> Self {
        let available = deployment.status.as_ref().and_then(|status| status.available_replicas);
        if available.unwrap_or_default() > 0 {
            return Self::Unknown;
        }
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
        Self::Down {
            wanted: wanted.unwrap_or(1),
        }
    }

    /// The line that names Kueue, or another webhook, as the blocker.
    pub(super) fn blocker(&self) -> Option<Line> {
        let namespace = ConfigRef::default().namespace;
        let pods = || command(["kubectl", "-n", &namespace, "get", "pods"]);
        match self {
            Self::Unknown => None,
            Self::Unreachable { webhook, message } if WEBHOOKS.contains(&webhook.as_str()) => {
                let text = format!(
                    "the blocker is Kueue: the API server cannot call its webhook {webhook}, and refuses every Job until it \
                     can: {message}"
                );
                let line = Line::waits(text).advice("Kelos tries again automatically once Kueue is available");
                Some(line.command(pods(), "get on Kueue's pods"))
            }
            Self::Unreachable { webhook, message } => {
                let text = format!(
                    "the blocker is webhook {webhook}: the API server cannot call it, and refuses every Job until it can: \
                     {message}"
                );
                Some(Line::waits(text).advice("the administrator of that webhook can restore it"))
            }
            Self::Down { wanted } => {
                let text = format!(
                    "the blocker is Kueue: Deployment {namespace}/{DEPLOYMENT} has none of its {wanted} replicas available, so \
                     that neither its controller nor its webhook works"
                );
                Some(Line::waits(text).command(pods(), "get on Kueue's pods"))
            }
        }
    }
}

/// Creates a Job as a dry run and reads Kueue's Deployment. A user without these rights gets `Unknown`. Errors when the API
/// server does not answer.
///
/// RBAC: `create` on jobs, `get` on Kueue's Deployment.
pub(super) async fn health(connection: &Connection) -> Result<KueueHealth> {
    let Connection { client, namespace } = connection;
    let job: Job = serde_json::from_value(json!({
        "metadata": {"generateName": "taskgate-explain-"},
        "spec": {"suspend": true, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "none", "image": "none"}],
        }}},
    }))?;
    let params = DryRun { dry_run: true }.post();
    let created = Api::<Job>::namespaced(client.clone(), namespace)
        .create(&params, &job)
        .await;
    match created {
        Ok(_) => {}
        Err(kube::Error::Api(status)) => {
            if let Some(refused) = KueueHealth::of_refusal(&status.message) {
                return Ok(refused);
            }
        }
        Err(error) => return Err(api_error(error)),
    }
    let deployments = Api::<Deployment>::namespaced(client.clone(), &ConfigRef::default().namespace);
    match deployments.get_opt(DEPLOYMENT).await {
        Ok(found) => Ok(found.as_ref().map_or(KueueHealth::Unknown, KueueHealth::of_deployment)),
        Err(kube::Error::Api(_)) => Ok(KueueHealth::Unknown),
        Err(error) => Err(api_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_unavailable_webhook() {
        let message = "Internal error occurred: failed calling webhook \"mjob.kb.io\": failed to call webhook: Post \
                       \"https://kueue-webhook-service.kueue-system.svc:443/mutate\": connection refused";
        let refused = KueueHealth::of_refusal(message).expect("a webhook failed");
        let line = refused.blocker().expect("it is the blocker");
        assert!(
            line.text
                .starts_with("the blocker is Kueue: the API server cannot call its webhook mjob.kb.io, ")
        );
        assert!(line.text.ends_with("connection refused"), "{}", line.text);
        assert_eq!(line.command.as_deref(), Some("kubectl -n kueue-system get pods"));
        let other =
            KueueHealth::of_refusal("failed calling webhook \"jobs.example.com\": EOF").expect("a webhook failed");
        assert!(
            other
                .blocker()
                .is_some_and(|line| line.text.starts_with("the blocker is webhook jobs.example.com: "))
        );
        for fine in [
            "jobs is forbidden",
            "exceeded quota",
            "admission webhook \"mjob.kb.io\" denied the request",
        ] {
            assert_eq!(KueueHealth::of_refusal(fine), None);
        }
    }

    #[test]
    fn a_deployment_without_an_available_replica_is_down() {
        let deployment = |status| -> Deployment {
            serde_json::from_value(json!({"metadata": {}, "spec": {
                "replicas": 2, "selector": {}, "template": {},
            }, "status": status}))
            .expect("a Deployment")
        };
        assert_eq!(
            KueueHealth::of_deployment(&deployment(json!({"availableReplicas": 1}))),
            KueueHealth::Unknown
        );
        let down = KueueHealth::of_deployment(&deployment(json!({})));
        assert_eq!(down, KueueHealth::Down { wanted: 2 });
        assert!(
            down.blocker()
                .is_some_and(|line| line.text.contains("none of its 2 replicas"))
        );
    }
}
