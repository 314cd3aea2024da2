//! The generated files of the Helm chart. The settings of an installation are templates in them; everything else comes from
//! the same code as the manifests for kustomize.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use taskgate_api::kelos_fields::KelosWriters;
use taskgate_webhook::{FailurePolicy, Registration, rules::CONFIGURATION};

use super::{HEADER, values};
use crate::{
    defaults,
    rights::{
        Names,
        manifest::{LIMITS, ROLES, RightsManifests, USER_ROLES},
    },
};

const NAME: &str = "{{ include \"taskgate.fullname\" . }}";
const ACCOUNT: &str = "{{ include \"taskgate.serviceAccount\" . }}";
/// Annotations and labels. The labels are last, so that an object can have further ones.
const METADATA: &str = "{{- include \"taskgate.metadata\" (dict \"root\" .) | nindent 2 }}";
/// The alerting rules, for clusters with the Prometheus operator.
const ALERTS: &str = include_str!("../../../manifests/components/monitoring/prometheus-rule.yaml");
/// The page of the alerts, in all of them.
const RUNBOOK: &str = "https://github.com/taskgate/taskgate/blob/main/docs/runbook.md#";
/// The failure policy of webhooks for objects of other projects.
const FAILURE_POLICY: &str = "{{ .Values.registration.failurePolicy }}";
const DASHBOARD: &str = include_str!("../../../manifests/components/monitoring/dashboard.json");

/// Every generated file of the chart but the CRDs, by its path in the chart.
pub(super) fn files() -> Result<Vec<(&'static str, String)>> {
    let [roles, users, limits] = rights();
    Ok(vec![
        ("values.yaml", values::yaml()?),
        ("README.md", values::readme()?),
        ("templates/registration.yaml", format!("{HEADER}{}", registration()?)),
        ("templates/rbac.yaml", format!("{HEADER}{roles}")),
        ("templates/user-roles.yaml", format!("{HEADER}{users}")),
        ("templates/limits.yaml", format!("{HEADER}{limits}")),
        ("files/alerts.yaml", alerts()?),
        ("files/dashboard.json", DASHBOARD.to_owned()),
    ])
}

fn rights() -> [String; 3] {
    let names = Names {
        without: Vec::new(),
        namespace: "{{ .Release.Namespace | quote }}".to_owned(),
        configuration: "{{ .Values.registration.name }}".to_owned(),
        certificate: format!("{NAME}-serving-cert"),
        issued: format!("{NAME}-tls"),
        lease: format!("{NAME}-controller"),
        kueue_config: "{{ splitList \"/\" .Values.kueue.config | last | quote }}".to_owned(),
    };
    let roles = RightsManifests {
        name: NAME,
        account: ACCOUNT,
        metadata: METADATA,
        names: &names,
        // The roles of a feature are installed where the values enable it.
        feature_guard: |feature| {
            let before = format!("{{{{- if .Values.features.{} }}}}\n", feature.value());
            [before, "{{- end }}\n".to_owned()]
        },
    };
    let limits = RightsManifests {
        names: &Names {
            // Part of a longer text.
            namespace: "{{ .Release.Namespace }}".to_owned(),
            ..names.clone()
        },
        ..roles
    };
    // Where the API server has ValidatingAdmissionPolicies and the values do not disable them.
    let guard =
        "{{- if and .Values.rights.admissionPolicies (semverCompare \">=1.30-0\" .Capabilities.KubeVersion.Version) }}";
    [
        roles.fill(ROLES),
        format!(
            "{{{{- if .Values.rights.userRoles }}}}\n{}{{{{- end }}}}\n",
            roles.fill(USER_ROLES)
        ),
        format!("{guard}\n{}{{{{- end }}}}\n", limits.fill(LIMITS)),
    ]
}

/// The registration with its settings as templates.
fn registration() -> Result<String> {
    const NAMESPACE: &str = "{{ .Release.Namespace | quote }}";
    const TIMEOUTS: [&str; 2] = [
        "{{ .Values.registration.mutatingTimeoutSeconds }}",
        "{{ .Values.registration.validatingTimeoutSeconds }}",
    ];
    let open = Registration::of_service(defaults::NAME, defaults::NAMESPACE);
    let mut closed = open.clone();
    closed.foreign_failure = FailurePolicy::Fail;
    let (open, closed) = (super::registration(&open)?, super::registration(&closed)?);
    // The failure policy is a setting where the setting makes a difference.
    let policy = |(open, closed): (&str, &str)| {
        let setting = || open.replace("Ignore", FAILURE_POLICY);
        format!("{}\n", if open == closed { open.to_owned() } else { setting() })
    };
    let text: String = open.lines().zip(closed.lines()).map(policy).collect();
    let metadata = "{{- include \"taskgate.registrationMetadata\" . | nindent 2 }}\n";
    let text = with_selectors(&with_kelos_writers(&text)?);
    let mut text = text.replace("labels:\n    app.kubernetes.io/part-of: taskgate\n", metadata);
    for (field, default, setting) in [
        ("name: ", defaults::NAME, NAME),
        ("namespace: ", defaults::NAMESPACE, NAMESPACE),
        ("- ", defaults::NAMESPACE, NAMESPACE),
        ("port: ", "443", "{{ .Values.service.port }}"),
        ("name: ", CONFIGURATION, "{{ .Values.registration.name }}"),
        ("timeoutSeconds: ", "2", TIMEOUTS[0]),
        ("timeoutSeconds: ", "3", TIMEOUTS[1]),
    ] {
        let found = format!(" {field}{default}\n");
        ensure!(text.contains(&found), "the registration does not have {field}{default}");
        text = text.replace(&found, &format!(" {field}{setting}\n"));
    }
    Ok(text)
}

/// The service accounts of Kelos in match conditions, as settings.
fn with_kelos_writers(text: &str) -> Result<String> {
    let KelosWriters { controller, spawner } = KelosWriters::default();
    let controller = format!("'system:serviceaccount:{}:{}'", controller.namespace, controller.name);
    let spawner = format!("':{spawner}'");
    for found in [&controller, &spawner] {
        ensure!(text.contains(found.as_str()), "the registration does not have {found}");
    }
    let text = text.replace(
        &controller,
        "'system:serviceaccount:{{ .Values.kelos.controller | replace \"/\" \":\" }}'",
    );
    Ok(text.replace(&spawner, "':{{ .Values.kelos.spawner }}'"))
}

/// Adds the selectors of the values to the webhooks for Tasks and Jobs, which are those with the failure policy of the values. The
/// others are always called.
fn with_selectors(registration: &str) -> String {
    const WEBHOOK: &str = "\n- admissionReviewVersions:";
    const OPTED_OUT: &str = "      values:\n      - disabled\n";
    let namespaces = format!("{OPTED_OUT}    {{{{- include \"taskgate.namespaceSelector\" . | nindent 4 }}}}\n");
    let objects = "  objectSelector:\n    {{- include \"taskgate.objectSelector\" . | nindent 4 }}\n";
    let webhooks = registration.split(WEBHOOK).map(|webhook| {
        if !webhook.contains(FAILURE_POLICY) {
            return webhook.to_owned();
        }
        webhook
            .replace(OPTED_OUT, &namespaces)
            .replace("  objectSelector: {}\n", objects)
    });
    webhooks.collect::<Vec<_>>().join(WEBHOOK)
}

/// The `spec` of the `PrometheusRule`: the chart gives it another name.
fn alerts() -> Result<String> {
    let rule: Value = serde_saphyr::from_str(ALERTS).context("prometheus-rule.yaml")?;
    let text = serde_saphyr::to_string(&rule["spec"]).context("writing YAML")?;
    ensure!(text.contains(RUNBOOK), "the alerts do not lead to {RUNBOOK}");
    // The chart fills in `monitoring.prometheusRule.runbookURL`.
    Ok(format!("{HEADER}{}\n", text.trim_end().replace(RUNBOOK, "RUNBOOK#")))
}
