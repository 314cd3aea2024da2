//! What can go wrong while a Task is looked after.

use crate::task::Subject;

/// A step could not be taken; it is tried again later.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {kind} {namespace}/{name}")]
pub struct Error {
    /// What was being done, such as `patching`.
    pub doing: &'static str,
    /// The kind of object.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What the API server said.
    pub source: Box<kube::Error>,
}

impl Error {
    /// What went wrong with the Task of `subject`, or with something that is called like it.
    pub(crate) fn of(doing: &'static str, kind: &'static str, subject: &Subject, source: kube::Error) -> Self {
        Self {
            doing,
            kind,
            namespace: subject.namespace.clone(),
            name: subject.state.name.clone(),
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

/// The object, or what it lives in, is gone.
pub(crate) fn is_absent(error: &kube::Error) -> bool {
    code(error) == Some(404)
}

/// RBAC does not allow it.
pub(crate) fn is_forbidden(error: &kube::Error) -> bool {
    code(error) == Some(403)
}

/// Whoever was asked does not want it: admission, a quota, a schema, RBAC. Asking again in the same way gives the same answer.
pub(crate) fn is_refused(error: &kube::Error) -> bool {
    matches!(code(error), Some(400 | 403 | 405 | 413 | 422))
}

/// The object is not what its schema, or a policy of the cluster, allows.
pub(crate) fn is_invalid(error: &kube::Error) -> bool {
    code(error) == Some(422)
}

/// The object is not what it was when we looked: look again.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    code(error) == Some(409)
}

/// The namespace is on its way out: nothing can be created in it any more.
pub(crate) fn is_namespace_terminating(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403 && status.message.contains("being terminated"))
}
