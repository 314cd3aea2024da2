//! The limits of taskgate's service account beyond its roles: RBAC knows verbs and resources, a `ValidatingAdmissionPolicy`
//! also which fields a write changes. A process with taskgate's token can then neither create a workload of its own nor
//! redirect webhooks.
//!
//! One policy for each kind of object, with its binding, for the manifests and the chart. taskgate has no right to change
//! them.

use std::fmt::Write as _;

use taskgate_api::{kelos, keys, switch};
use taskgate_webhook::rules::EXCLUDED_NAMESPACES;

use super::manifest::RoleManifests;

/// One `ValidatingAdmissionPolicy`.
struct AdmissionLimit {
    /// The suffix of its name, after taskgate's.
    suffix: &'static str,
    /// Where it applies: API group, versions, resources and operations.
    rules: Vec<[&'static str; 4]>,
    validations: Vec<Validation>,
}

/// An expression in CEL, and the message of the API server where it is false.
type Validation = (String, &'static str);

/// The policies and their bindings, as YAML.
pub(crate) fn policies(roles: &RoleManifests<'_>) -> String {
    limits(roles.namespace)
        .iter()
        .fold(String::new(), |text, limit| text + &document(roles, limit))
}

/// The limits in Markdown.
pub(crate) fn table() -> String {
    let mut text = String::from(
        "\n## What its roles allow and its admission policies refuse\n\n\
         RBAC cannot say which fields a write may change. Where the API server has `ValidatingAdmissionPolicy` (Kubernetes 1.30 \
         and\nlater), the manifests bring one for each kind of object below. They apply to taskgate's service account alone, \
         with\n`failurePolicy: Fail`; taskgate has no right to change them.\n\n| Resources | Operations | Refused unless |\n|---|---|---|\n",
    );
    for limit in limits("taskgate-system") {
        let resources: Vec<_> = limit
            .rules
            .iter()
            .map(|[_, _, resources, _]| format!("`{resources}`"))
            .collect();
        let operations: Vec<_> = limit.rules.iter().map(|[.., operations]| *operations).collect();
        let messages: Vec<_> = limit.validations.iter().map(|(_, message)| *message).collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            resources.join("; "),
            operations.join("; "),
            messages.join("; ")
        );
    }
    text
}

fn limits(own_namespace: &str) -> Vec<AdmissionLimit> {
    let scope = || {
        (
            in_scope(own_namespace),
            "the namespace is not a system's, not taskgate's own, and not labelled taskgate.dev/admission=disabled",
        )
    };
    vec![
        webhooks("mutating", "mutatingwebhookconfigurations", &["reinvocationPolicy"]),
        webhooks("validating", "validatingwebhookconfigurations", &[]),
        pods(scope()),
        jobs(scope()),
        tasks(&scope()),
        task_status(),
        workloads(scope()),
    ]
}

/// The namespaces that taskgate creates and deletes in.
fn in_scope(own_namespace: &str) -> String {
    let excluded: Vec<_> = EXCLUDED_NAMESPACES.iter().map(|name| format!("'{name}'")).collect();
    format!(
        "!(request.namespace in [{}, '{own_namespace}'])\n&& namespaceObject.metadata.?labels[?'{}'].orValue('') != '{}'",
        excluded.join(", "),
        keys::ADMISSION,
        keys::ADMISSION_DISABLED,
    )
}

/// The expression that these fields are unchanged.
fn unchanged(fields: &[&str]) -> String {
    let equal: Vec<_> = fields
        .iter()
        .map(|field| {
            let (path, last) = field.rsplit_once('.').unwrap_or(("", field));
            let dot = if path.is_empty() { "" } else { "." };
            format!("object{dot}{path}.?{last} == oldObject{dot}{path}.?{last}")
        })
        .collect();
    equal.join("\n&& ")
}

fn webhooks(suffix: &'static str, resource: &'static str, more: &[&str]) -> AdmissionLimit {
    let fields = [
        "clientConfig.?service",
        "clientConfig.?url",
        "?rules",
        "?failurePolicy",
        "?matchPolicy",
        "?namespaceSelector",
        "?objectSelector",
        "?sideEffects",
        "?timeoutSeconds",
        "?admissionReviewVersions",
    ];
    let more = more.iter().map(|field| format!("?{field}"));
    let same: Vec<_> = fields
        .into_iter()
        .map(ToOwned::to_owned)
        .chain(more)
        .map(|field| format!("w.{field} == o.{field}"))
        .collect();
    let others = |of: &str| {
        format!(
            "{of}.?matchConditions.orValue([]).filter(c, c.name != '{}')",
            switch::CONDITION
        )
    };
    let expression = format!(
        "size(object.?webhooks.orValue([])) == size(oldObject.?webhooks.orValue([]))\n\
         && object.?webhooks.orValue([]).all(w, oldObject.?webhooks.orValue([]).exists(o, o.name == w.name\n  && {}\n  \
         && {} == {}\n  && (w.name.endsWith('.taskgate.dev') || w.clientConfig.?caBundle == o.clientConfig.?caBundle)))",
        same.join("\n  && "),
        others("w"),
        others("o"),
    );
    AdmissionLimit {
        suffix,
        rules: vec![["admissionregistration.k8s.io", "v1", resource, "UPDATE"]],
        validations: vec![
            (
                expression,
                "of its own webhooks only the caBundle changes, and the condition of `taskgate disable`",
            ),
            (
                unchanged(&["metadata.labels", "metadata.annotations", "metadata.ownerReferences"]),
                "labels, annotations and owners stay",
            ),
        ],
    }
}

fn pods(scope: Validation) -> AdmissionLimit {
    let own = format!("['{}', '{}']", keys::CANCEL_DEADLINE, kelos::CANCEL_TASK);
    let (new, old) = (
        "object.metadata.?annotations.orValue({})",
        "oldObject.metadata.?annotations.orValue({})",
    );
    let expression = format!(
        "{new}.all(k, k in {own} || (k in {old} && {new}[k] == {old}[k]))\n&& {old}.all(k, k in {own} || k in {new})\n&& {}",
        unchanged(&[
            "metadata.labels",
            "metadata.ownerReferences",
            "metadata.finalizers",
            "spec"
        ]),
    );
    AdmissionLimit {
        suffix: "pods",
        rules: vec![["", "v1", "pods", "UPDATE"]],
        validations: vec![
            (
                expression,
                "only the annotations taskgate.dev/cancel-deadline and kelos.dev/cancel-task change",
            ),
            scope,
        ],
    }
}

fn jobs(scope: Validation) -> AdmissionLimit {
    let owned = format!(
        "oldObject.metadata.?ownerReferences.orValue([]).exists(o, o.kind == 'Task' && o.apiVersion.startsWith('{}/') && \
         o.?controller.orValue(false))",
        kelos::GROUP
    );
    AdmissionLimit {
        suffix: "jobs",
        rules: vec![
            ["batch", "v1", "jobs, jobs/status", "UPDATE"],
            ["batch", "v1", "jobs", "DELETE"],
        ],
        validations: vec![
            (owned, "a Kelos Task owns the Job"),
            (
                format!(
                    "request.operation == 'DELETE'\n|| ({})",
                    unchanged(&[
                        "metadata.ownerReferences",
                        "metadata.finalizers",
                        "spec.suspend",
                        "spec.parallelism",
                        "spec.completions",
                        "spec.template.spec",
                    ])
                ),
                "what the Job runs, its owners and its finalizers stay",
            ),
            scope,
        ],
    }
}

/// Only successors are created.
fn successor() -> Validation {
    (
        format!(
            "request.operation != 'CREATE'\n|| object.metadata.?annotations[?'{}'].orValue('') != ''",
            keys::RETRY_OF
        ),
        "it creates only successors, with the annotation taskgate.dev/retry-of",
    )
}

fn tasks(scope: &Validation) -> AdmissionLimit {
    let finalizers = |of: &str| {
        format!(
            "{of}.metadata.?finalizers.orValue([]).filter(f, f != '{}')",
            keys::ACCOUNTING
        )
    };
    let kept = format!(
        "request.operation != 'UPDATE'\n|| ({}\n&& {} == {})",
        unchanged(&["spec", "metadata.ownerReferences"]),
        finalizers("object"),
        finalizers("oldObject"),
    );
    AdmissionLimit {
        suffix: "tasks",
        rules: vec![[kelos::GROUP, "*", "tasks", "CREATE, UPDATE, DELETE"]],
        validations: vec![
            successor(),
            (kept, "spec, owners and the finalizers of others stay"),
            (
                ended(&["Succeeded", "Failed", "Cancelled"]),
                "it deletes only Tasks that have ended",
            ),
            // A Task in a namespace that was opted out keeps no finalizer of taskgate's.
            (format!("request.operation == 'UPDATE'\n|| ({})", scope.0), scope.1),
        ],
    }
}

fn task_status() -> AdmissionLimit {
    AdmissionLimit {
        suffix: "task-status",
        rules: vec![[kelos::GROUP, "*", "tasks/status", "UPDATE"]],
        validations: vec![(
            "object.?status.?phase == oldObject.?status.?phase\n\
                         || object.?status.?phase.orValue('') in ['Failed', 'Cancelled']"
                .to_owned(),
            "a Task goes to no other phase than Failed or Cancelled",
        )],
    }
}

fn workloads(scope: Validation) -> AdmissionLimit {
    AdmissionLimit {
        suffix: "workloads",
        rules: vec![[taskgate_api::foreman::GROUP, "*", "workloads", "CREATE, DELETE"]],
        validations: vec![
            successor(),
            (ended(&["Failed"]), "it deletes only Workloads that have failed"),
            scope,
        ],
    }
}

/// The expression that a deleted object has one of `phases`.
fn ended(phases: &[&str]) -> String {
    let phases: Vec<_> = phases.iter().map(|phase| format!("'{phase}'")).collect();
    format!(
        "request.operation != 'DELETE'\n|| oldObject.?status.?phase.orValue('') in [{}]",
        phases.join(", ")
    )
}

fn document(roles: &RoleManifests<'_>, limit: &AdmissionLimit) -> String {
    let RoleManifests {
        name,
        namespace,
        labels,
        ..
    } = roles;
    let AdmissionLimit {
        suffix,
        rules,
        validations,
    } = limit;
    let mut text = String::new();
    let head = |kind: &str| {
        format!(
            "---\napiVersion: admissionregistration.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {name}-{suffix}\n  \
             labels:{labels}\nspec:\n"
        )
    };
    text += &head("ValidatingAdmissionPolicy");
    text += "  failurePolicy: Fail\n  matchConstraints:\n    resourceRules:\n";
    for [group, versions, resources, operations] in rules {
        let _ = writeln!(
            text,
            "    - {{apiGroups: [\"{group}\"], apiVersions: [\"{versions}\"], resources: [{resources}], operations: [{operations}]}}"
        );
    }
    let _ = write!(
        text,
        "  matchConditions:\n  - name: is-taskgate\n    expression: >-\n      request.userInfo.username ==\n      \
         'system:serviceaccount:{namespace}:{name}'\n  validations:\n"
    );
    for (expression, message) in validations {
        let expression = expression.replace('\n', "\n      ");
        let _ = write!(
            text,
            "  - expression: |-\n      {expression}\n    message: >-\n      taskgate's own service account is refused unless {message}\n    \
             reason: Forbidden\n"
        );
    }
    text += &head("ValidatingAdmissionPolicyBinding");
    let _ = write!(text, "  policyName: {name}-{suffix}\n  validationActions: [Deny]\n");
    text
}
