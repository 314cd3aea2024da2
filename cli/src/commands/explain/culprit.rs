//! Whether Kueue keeps Jobs from being made or noticed, as far as that can be seen from outside. While its webhook does not
//! answer, the API server refuses every Job where it looks after Jobs, and Kelos tells nobody (kueue §1, kelos §6.4).

use anyhow::Result;
use k8s_openapi::api::{apps::v1::Deployment, batch::v1::Job};
use kube::{Api, api::PostParams};
use serde_json::json;
use taskgate_api::kueue::ConfigRef;

use super::{command::command, story::Line};
use crate::commands::{Connection, said};

/// Kueue's Deployment, as its own manifests and its chart call it.
const DEPLOYMENT: &str = "kueue-controller-manager";
/// What the API server says of a webhook that does not answer, before its name.
const FAILED_CALL: &str = "failed calling webhook \"";
/// Kueue's webhooks for Jobs (kueue §1).
const WEBHOOKS: [&str; 2] = ["mjob.kb.io", "vjob.kb.io"];

/// What is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kueue {
    /// Nothing, or nothing bad.
    Unknown,
    /// The API server cannot call a webhook, and so refuses Jobs.
    Unreachable {
        /// Its name.
        webhook: String,
        /// What the API server says.
        message: String,
    },
    /// None of its replicas works.
    Down {
        /// How many there ought to be.
        wanted: i32,
    },
}

impl Kueue {
    /// What a refusal of a Job says about it.
    fn of_refusal(message: &str) -> Option<Self> {
        let (_, rest) = message.split_once(FAILED_CALL)?;
        let (webhook, _) = rest.split_once('"')?;
        Some(Self::Unreachable {
            webhook: webhook.to_owned(),
            message: message.to_owned(),
        })
    }

    /// What its Deployment says about it.
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

    /// Who is to blame, if somebody is.
    pub(super) fn culprit(&self) -> Option<Line> {
        let namespace = ConfigRef::default().namespace;
        let look = |kind: &str| command(["kubectl", "-n", &namespace, "get", kind]);
        match self {
            Self::Unknown => None,
            Self::Unreachable { webhook, message } if WEBHOOKS.contains(&webhook.as_str()) => {
                let text = format!(
                    "the culprit is Kueue: the API server cannot call its webhook {webhook}, and refuses every Job until it \
                     can: {message}"
                );
                let line = Line::waits(text).advice("Kelos tries again by itself once Kueue is back");
                Some(line.command(look("pods"), "get on Kueue's pods"))
            }
            Self::Unreachable { webhook, message } => {
                let text = format!(
                    "the culprit is webhook {webhook}: the API server cannot call it, and refuses every Job until it can: \
                     {message}"
                );
                Some(Line::waits(text).advice("whoever runs that webhook can bring it back"))
            }
            Self::Down { wanted } => {
                let text = format!(
                    "the culprit is Kueue: Deployment {namespace}/{DEPLOYMENT} has none of its {wanted} replicas available, so \
                     that neither its controller nor its webhook works"
                );
                Some(Line::waits(text).command(look("pods"), "get on Kueue's pods"))
            }
        }
    }
}

/// Asks: would a Job be made now (a dry run, of which nothing is kept), and does Kueue's Deployment work? What may not be asked
/// is not known. Errors when the API server does not answer.
///
/// RBAC: `create` on jobs, `get` on Kueue's Deployment.
pub(super) async fn ask(connection: &Connection) -> Result<Kueue> {
    let Connection { client, namespace } = connection;
    let job: Job = serde_json::from_value(json!({
        "metadata": {"generateName": "taskgate-explain-"},
        "spec": {"suspend": true, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "none", "image": "none"}],
        }}},
    }))?;
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let made = Api::<Job>::namespaced(client.clone(), namespace)
        .create(&params, &job)
        .await;
    match made {
        Ok(_) => {}
        Err(kube::Error::Api(status)) => {
            if let Some(refused) = Kueue::of_refusal(&status.message) {
                return Ok(refused);
            }
        }
        Err(error) => return Err(said(error)),
    }
    let deployments = Api::<Deployment>::namespaced(client.clone(), &ConfigRef::default().namespace);
    match deployments.get_opt(DEPLOYMENT).await {
        Ok(found) => Ok(found.as_ref().map_or(Kueue::Unknown, Kueue::of_deployment)),
        Err(kube::Error::Api(_)) => Ok(Kueue::Unknown),
        Err(error) => Err(said(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_webhook_that_does_not_answer() {
        let message = "Internal error occurred: failed calling webhook \"mjob.kb.io\": failed to call webhook: Post \
                       \"https://kueue-webhook-service.kueue-system.svc:443/mutate\": connection refused";
        let refused = Kueue::of_refusal(message).expect("a webhook failed");
        let line = refused.culprit().expect("it is to blame");
        assert!(
            line.text
                .starts_with("the culprit is Kueue: the API server cannot call its webhook mjob.kb.io, ")
        );
        assert!(line.text.ends_with("connection refused"), "{}", line.text);
        assert_eq!(line.command.as_deref(), Some("kubectl -n kueue-system get pods"));
        let other = Kueue::of_refusal("failed calling webhook \"jobs.example.com\": EOF").expect("a webhook failed");
        assert!(
            other
                .culprit()
                .is_some_and(|line| line.text.starts_with("the culprit is webhook jobs.example.com: "))
        );
        for fine in [
            "jobs is forbidden",
            "exceeded quota",
            "admission webhook \"mjob.kb.io\" denied the request",
        ] {
            assert_eq!(Kueue::of_refusal(fine), None);
        }
    }

    #[test]
    fn a_deployment_without_a_working_replica_is_down() {
        let deployment = |status| -> Deployment {
            serde_json::from_value(json!({"metadata": {}, "spec": {
                "replicas": 2, "selector": {}, "template": {},
            }, "status": status}))
            .expect("a Deployment")
        };
        assert_eq!(
            Kueue::of_deployment(&deployment(json!({"availableReplicas": 1}))),
            Kueue::Unknown
        );
        let down = Kueue::of_deployment(&deployment(json!({})));
        assert_eq!(down, Kueue::Down { wanted: 2 });
        assert!(
            down.culprit()
                .is_some_and(|line| line.text.contains("none of its 2 replicas"))
        );
    }
}
