//! Asking the API server, and what its answers mean.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures::future::join_all;
use http::Request;
use http_body_util::{BodyExt as _, Collected};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::version::Info};
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams},
    client::Body,
};
use serde_json::Value;
use taskgate_certs::SecretData;

use super::super::{
    facts::{Certificate, Page, Seen, Server, Unseen},
    finding::{Check, Finding},
};
use crate::{
    commands::kind::{Kind, resource},
    output::Progress,
};

/// How much is asked, about: for the line that tells how far it is.
const QUESTIONS: usize = 150;

/// Asks, and counts how often.
pub(super) struct Reader {
    pub(super) client: Client,
    progress: Progress,
    asked: AtomicUsize,
}

impl Reader {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            progress: Progress::new("asking the API server"),
            asked: AtomicUsize::new(0),
        }
    }

    /// What came of a request, as something that was seen or not.
    pub(super) fn seen<T>(&self, answer: kube::Result<T>) -> Seen<T> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        self.progress.at(asked, asked.max(QUESTIONS));
        answer.map_err(|error| match error {
            kube::Error::Api(status) if status.code == 404 => Unseen::Absent,
            kube::Error::Api(status) if !status.message.is_empty() => Unseen::Refused(status.message.clone()),
            error => Unseen::Refused(error.to_string()),
        })
    }

    /// The objects of `kind` in `namespace`, or everywhere.
    pub(super) fn api(&self, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = resource(kind);
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// One object.
    pub(super) async fn get(&self, kind: Kind, namespace: Option<&str>, name: &str) -> Seen<Value> {
        let found = self.api(kind, namespace).get(name).await;
        self.seen(found).map(|object| json(&object))
    }

    /// All objects.
    pub(super) async fn list(&self, kind: Kind, namespace: Option<&str>, params: &ListParams) -> Seen<Vec<Value>> {
        let found = self.api(kind, namespace).list(params).await;
        self.seen(found).map(|list| list.items.iter().map(json).collect())
    }

    /// The first objects of all.
    pub(super) async fn page(&self, kind: Kind, params: &ListParams) -> Seen<Page> {
        let found = self.api(kind, None).list(params).await;
        self.seen(found).map(|list| Page {
            objects: list.items.iter().map(json).collect(),
            more: list.metadata.continue_.is_some_and(|token| !token.is_empty()),
        })
    }

    /// The objects of these names, in whatever namespace.
    pub(super) async fn named(&self, kind: Kind, names: &[&'static str]) -> BTreeMap<&'static str, Seen<Vec<Value>>> {
        let reads = names.iter().map(async |name| {
            let params = ListParams::default().fields(&format!("metadata.name={name}"));
            (*name, self.list(kind, None, &params).await)
        });
        join_all(reads).await.into_iter().collect()
    }

    /// Our own definitions and `foreign` ones.
    pub(super) async fn crds(&self, kind: Kind, foreign: &[&str]) -> BTreeMap<String, Seen<Value>> {
        let own = taskgate_api::crds::all()
            .into_iter()
            .filter_map(|crd| crd.metadata.name);
        let names: Vec<_> = own.chain(foreign.iter().map(ToString::to_string)).collect();
        let reads = names.into_iter().map(async |name| {
            let found = self.get(kind, None, &name).await;
            (name, found)
        });
        join_all(reads).await.into_iter().collect()
    }

    /// The groups that are served, with their versions.
    pub(super) async fn groups(&self) -> Seen<BTreeMap<String, Vec<String>>> {
        let found = self.client.list_api_groups().await;
        let groups = self.seen(found)?.groups.into_iter();
        let versions = |group: Vec<_>| group.into_iter();
        Ok(groups
            .map(|group| {
                let served = versions(group.versions).map(|version| version.version);
                (group.name, served.collect())
            })
            .collect())
    }

    /// What is public of the Secret with the certificate. Its keys go no further than this function.
    pub(super) async fn certificate(&self, namespace: &str, name: &str) -> Seen<Certificate> {
        let found = Api::<Secret>::namespaced(self.client.clone(), namespace)
            .get(name)
            .await;
        let SecretData { tls_crt, ca_crt, .. } = SecretData::from(&self.seen(found)?);
        Ok(Certificate {
            chain: tls_crt,
            authorities: ca_crt,
        })
    }

    /// Whether there is an API server, of which version, and what time it is there. Else what to tell.
    pub(super) async fn server(&self) -> Result<Server, Finding> {
        let failure = |message: String, advice: &str| Err(Finding::failure(Check::ApiServer, message, advice));
        let before = Timestamp::now();
        let request = match Request::get("/version").body(Body::empty()) {
            Ok(request) => request,
            Err(error) => return failure(error.to_string(), "report this: it is a fault of taskgate"),
        };
        let response = match self.client.send(request).await {
            Ok(response) => response,
            Err(error) => {
                return failure(
                    format!("it does not answer: {:#}", anyhow::Error::from(error)),
                    "is the kubeconfig that of this cluster, and the network up?",
                );
            }
        };
        let after = Timestamp::now();
        let status = response.status();
        if status.as_u16() == 401 {
            return failure(
                "it does not know who asks: Unauthorized".to_owned(),
                "log in again: the credentials in the kubeconfig are expired or wrong",
            );
        }
        let date = response.headers().get(http::header::DATE);
        let date = date.and_then(|date| rfc2822::parse(date.to_str().ok()?).ok());
        let body = response.into_body().collect().await.map(Collected::to_bytes);
        let info = body.ok().and_then(|body| serde_json::from_slice::<Info>(&body).ok());
        let Some(info) = info.filter(|_| status.is_success()) else {
            return failure(
                format!("it does not tell its version: {status}"),
                "is this the address of a Kubernetes API server?",
            );
        };
        let number = |text: &str| {
            let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
            digits.parse().unwrap_or_default()
        };
        // The header counts whole seconds: half a second later is the best guess.
        let there = date.map(|date| date.timestamp() + SignedDuration::from_millis(500));
        let here = before + after.duration_since(before) / 2;
        Ok(Server {
            version: (number(&info.major), number(&info.minor), info.git_version),
            clock: there.map(|there| (there, here)),
        })
    }
}

/// An object as JSON. What came as JSON can be written as JSON; what cannot reads as an object without anything.
fn json(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}
