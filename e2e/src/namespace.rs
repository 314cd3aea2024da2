//! A namespace of its own for every test.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::{Api, Resource};
use rand::Rng as _;

use crate::access::Access;
use crate::kubectl::Output;
use crate::wait::{PATIENCE, eventually};

/// Label of every namespace: the test that it was made for.
const TEST: &str = "taskgate.dev/test";

/// A namespace with a unique name. It ends with its control plane.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    access: Access,
}

impl Namespace {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Access to its API server.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Objects of a built-in or typed kind in it, for the admin.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType: Default>,
    {
        Api::namespaced(self.access.client(), &self.name)
    }

    /// Objects of any kind in it, for the admin.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn dynamic_api(&self, kind: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.access.client(), &self.name, kind)
    }

    /// `kubectl -n <name> …`
    ///
    /// # Errors
    /// If it cannot be run; that it fails is in the [`Output`].
    pub async fn kubectl<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> anyhow::Result<Output> {
        self.kubectl_with_input(args, "").await
    }

    /// `kubectl -n <name> …`, with something to read.
    ///
    /// # Errors
    /// If it cannot be run; that it fails is in the [`Output`].
    pub async fn kubectl_with_input<I: IntoIterator<Item: AsRef<OsStr>>>(
        &self,
        args: I,
        input: &str,
    ) -> anyhow::Result<Output> {
        let all: Vec<OsString> = ["-n".into(), self.name.clone().into()]
            .into_iter()
            .chain(args.into_iter().map(|arg| arg.as_ref().to_owned()))
            .collect();
        self.access.kubectl_with_input(all, input).await
    }

    /// Server-side apply; documents without a namespace land in this one.
    ///
    /// # Errors
    /// If the server refuses one of them.
    pub async fn apply_yaml(&self, yaml: &str) -> anyhow::Result<()> {
        self.access.apply_into(Some(&self.name), yaml).await.map(drop)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl AsRef<str> for Namespace {
    fn as_ref(&self) -> &str {
        &self.name
    }
}

impl Access {
    /// A new namespace called after `hint`, with its service account: pods can be created.
    ///
    /// # Errors
    /// If it cannot be created.
    pub async fn namespace(&self, hint: &str) -> anyhow::Result<Namespace> {
        self.namespace_with_labels(hint, &[]).await
    }

    /// A new namespace with labels, for what selects namespaces by them.
    ///
    /// # Errors
    /// If it cannot be created.
    pub async fn namespace_with_labels(&self, hint: &str, labels: &[(&str, &str)]) -> anyhow::Result<Namespace> {
        let name = format!("{hint}-{:06x}", rand::rng().random_range(0..0x0100_0000));
        self.create_namespace(&name, labels).await
    }

    /// A new namespace of exactly this name, for manifests that contain it.
    ///
    /// # Errors
    /// If it cannot be created, as when it exists.
    pub async fn namespace_named(&self, name: &str) -> anyhow::Result<Namespace> {
        self.create_namespace(name, &[]).await
    }

    async fn create_namespace(&self, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<Namespace> {
        let client = self.client();
        let mut all = BTreeMap::from([(TEST.to_owned(), test_name())]);
        all.extend(labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())));
        let mut namespace = v1::Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        namespace.metadata.labels = Some(all);
        Api::<v1::Namespace>::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await?;

        let accounts: Api<v1::ServiceAccount> = Api::namespaced(client, name);
        eventually(
            format!("namespace {name} has its service account"),
            PATIENCE,
            || async { Ok(accounts.get("default").await?) },
        )
        .await?;
        Ok(Namespace {
            name: name.to_owned(),
            access: self.clone(),
        })
    }
}

/// libtest names a test's thread after the test; as a label value.
fn test_name() -> String {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("main").replace("::", ".");
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = name.chars().map(|c| if legal(c) { c } else { '-' }).take(63).collect();
    name.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}
