//! A tenant: a user with rights in one namespace and in no other, as a team that shares the cluster has them.

use std::ffi::OsStr;

use anyhow::Context as _;
use kube::api::{DynamicObject, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::access::Access;
use crate::fixture::resource;
use crate::kubectl::Output;
use crate::namespace::Namespace;

/// What a tenant may do in its namespace.
const RULES: &str = r#"[
  {"apiGroups": ["kelos.dev"], "resources": ["tasks", "taskspawners", "workspaces"], "verbs": ["*"]},
  {"apiGroups": ["taskgate.dev"], "resources": ["taskpolicies", "workitems", "workitems/status"], "verbs": ["*"]},
  {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["*"]},
  {"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}
]"#;

/// A namespace, and a user who has all rights on its Tasks, TaskSpawners, Workspaces, TaskPolicies, WorkItems and their status,
/// Jobs and pods.
#[derive(Clone, Debug)]
pub struct Tenant {
    ns: Namespace,
    access: Access,
    user: String,
}

impl Access {
    /// A new namespace called after `hint`, with its tenant.
    ///
    /// # Errors
    /// If the namespace, the Role or the RoleBinding cannot be created.
    pub async fn tenant(&self, hint: &str) -> anyhow::Result<Tenant> {
        let ns = self.namespace(hint).await?;
        let user = format!("user-of-{ns}");
        let rules: Value = serde_json::from_str(RULES).context("the rules of a tenant")?;
        let group = "rbac.authorization.k8s.io";
        let role = json!({
            "apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": "tenant"}, "rules": rules,
        });
        let binding = json!({
            "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": "tenant"},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "tenant"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        });
        ns.apply_yaml(&format!("{role}\n---\n{binding}")).await?;
        Ok(Tenant {
            ns,
            access: self.clone(),
            user,
        })
    }
}

impl Tenant {
    /// Its namespace, in which the admin may do what the tenant may not.
    pub fn ns(&self) -> &Namespace {
        &self.ns
    }

    /// Its user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// A client with the tenant's rights.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn client(&self) -> Client {
        self.access.client_as(&self.user, &["system:authenticated"])
    }

    /// Objects of a kind in its namespace, with its rights.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn api(&self, api_version: &str, kind: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client(), self.ns.name(), &resource(api_version, kind))
    }

    /// Creates `object` with its rights.
    ///
    /// # Errors
    /// What the API server answers, or that `object` has no kind.
    pub async fn create(&self, object: &Value) -> anyhow::Result<DynamicObject> {
        self.post(object, false).await
    }

    /// The same as a dry run on the server.
    ///
    /// # Errors
    /// As [`Tenant::create`].
    pub async fn dry_run(&self, object: &Value) -> anyhow::Result<DynamicObject> {
        self.post(object, true).await
    }

    async fn post(&self, object: &Value, dry_run: bool) -> anyhow::Result<DynamicObject> {
        let object: DynamicObject = serde_json::from_value(object.clone())?;
        let types = object.types.as_ref().context("the object has no kind")?;
        let params = PostParams {
            dry_run,
            ..PostParams::default()
        };
        let api = self.api(&types.api_version, &types.kind);
        Ok(api.create(&params, &object).await?)
    }

    /// `kubectl --as <user> -n <namespace> …`, with something to read.
    ///
    /// # Errors
    /// If it cannot be run; that it fails is in the [`Output`].
    pub async fn kubectl<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I, input: &str) -> anyhow::Result<Output> {
        let fixed = ["--as", &self.user].map(|arg| AsRef::<OsStr>::as_ref(arg).to_owned());
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        self.ns.kubectl_with_input(fixed.into_iter().chain(args), input).await
    }
}
