//! The error of a reconcile, and what the API server's answers mean.

/// A step of a reconcile failed; it is tried again later.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {kind} {namespace}/{name}")]
pub struct Error {
    /// The operation, such as `patching`.
    pub doing: &'static str,
    /// The kind of object.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The API server's answer.
    pub source: Box<kube::Error>,
}

impl Error {
    /// `doing` failed with `source` for the object `namespace/name`.
    pub(crate) fn new(
        doing: &'static str,
        kind: &'static str,
        namespace: &str,
        name: &str,
        source: kube::Error,
    ) -> Self {
        Self {
            doing,
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            source: Box::new(source),
        }
    }
}

/// The HTTP status of an answer of the API server.
fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// The object, or its namespace, does not exist.
pub(crate) fn is_absent(error: &kube::Error) -> bool {
    code(error) == Some(404)
}

/// RBAC does not allow it.
pub(crate) fn is_forbidden(error: &kube::Error) -> bool {
    code(error) == Some(403)
}

/// Admission, a quota, the schema or RBAC refuses the request. The same request gets the same answer.
pub(crate) fn is_refused(error: &kube::Error) -> bool {
    matches!(code(error), Some(400 | 403 | 405 | 413 | 422))
}

/// The schema, or a policy of the cluster, does not allow the object.
pub(crate) fn is_invalid(error: &kube::Error) -> bool {
    code(error) == Some(422)
}

/// The object changed since it was read: read it again.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    code(error) == Some(409)
}

/// The API server takes no more requests for now, or does not answer.
pub(crate) fn is_overload(error: &kube::Error) -> bool {
    code(error).is_none_or(|code| matches!(code, 429 | 503 | 504))
}

/// The namespace is being deleted: nothing can be created in it any more.
pub(crate) fn is_namespace_terminating(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403 && status.message.contains("being terminated"))
}

/// The message of the API server's answer.
pub(crate) fn message_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
