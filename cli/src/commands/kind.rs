//! Kinds of objects by their names in the API, for commands that need no types of them.

use kube::api::{ApiResource, GroupVersionKind};

/// Group, version, kind, plural.
pub(super) type Kind = (&'static str, &'static str, &'static str, &'static str);

pub(super) const CONFIG_MAP: Kind = ("", "v1", "ConfigMap", "configmaps");
pub(super) const CRD: Kind = (
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
);
pub(super) const DEPLOYMENT: Kind = ("apps", "v1", "Deployment", "deployments");
pub(super) const LEASE: Kind = ("coordination.k8s.io", "v1", "Lease", "leases");
pub(super) const NAMESPACE: Kind = ("", "v1", "Namespace", "namespaces");
pub(super) const SERVICE: Kind = ("", "v1", "Service", "services");

/// The kind as kube's dynamic API takes it.
pub(super) fn resource((group, version, kind, plural): Kind) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}
