//! The generated files of the Helm chart. The settings of an installation are templates in them; everything else comes from
//! the same code as the manifests for kustomize.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use taskgate_webhook::Registration;

use super::HEADER;
use crate::{
    defaults,
    rights::{
        Names,
        manifest::{LIMITS, ROLES, RightsManifests},
    },
};

const NAME: &str = "{{ include \"taskgate.fullname\" . }}";
const LABELS: &str = "{{- include \"taskgate.labels\" . | nindent 4 }}";
/// The alerting rules, for clusters with the Prometheus operator.
const ALERTS: &str = include_str!("../../../manifests/components/monitoring/prometheus-rule.yaml");
const DASHBOARD: &str = include_str!("../../../manifests/components/monitoring/dashboard.json");

/// Every generated file of the chart but the CRDs, by its path in the chart.
pub(super) fn files() -> Result<Vec<(&'static str, String)>> {
    let [roles, limits] = rights();
    Ok(vec![
        ("templates/registration.yaml", format!("{HEADER}{}", registration()?)),
        ("templates/rbac.yaml", format!("{HEADER}{roles}")),
        ("templates/limits.yaml", format!("{HEADER}{limits}")),
        ("files/alerts.yaml", alerts()?),
        ("files/dashboard.json", DASHBOARD.to_owned()),
    ])
}

fn rights() -> [String; 2] {
    let roles = RightsManifests {
        name: NAME,
        namespace: "{{ .Release.Namespace | quote }}",
        labels: LABELS,
        names: &Names {
            without: Vec::new(),
            configuration: "{{ .Values.registration.name }}".to_owned(),
            certificate: format!("{NAME}-serving-cert"),
            issued: format!("{NAME}-tls"),
            lease: format!("{NAME}-controller"),
            kueue_config: "{{ splitList \"/\" .Values.kueue.config | last | quote }}".to_owned(),
        },
        // The roles of a feature are installed where the values enable it.
        feature_guard: |feature| {
            let before = format!("{{{{- if .Values.features.{} }}}}\n", feature.value());
            [before, "{{- end }}\n".to_owned()]
        },
    };
    // Here the namespace is part of a longer text.
    let limits = RightsManifests {
        namespace: "{{ .Release.Namespace }}",
        ..roles
    };
    // Where the API server has ValidatingAdmissionPolicies and the values do not disable them.
    let guard =
        "{{- if and .Values.rights.admissionPolicies (semverCompare \">=1.30-0\" .Capabilities.KubeVersion.Version) }}";
    [
        roles.fill(ROLES),
        format!("{guard}\n{}{{{{- end }}}}\n", limits.fill(LIMITS)),
    ]
}

/// The registration with its settings as templates.
fn registration() -> Result<String> {
    let annotated = format!("  {{{{- include \"taskgate.registrationAnnotations\" . }}}}\n  labels:\n    {LABELS}\n");
    let settings = [
        (
            "  labels:\n    app.kubernetes.io/part-of: taskgate\n",
            annotated.as_str(),
        ),
        (" taskgate\n", &format!(" {NAME}\n")),
        (" taskgate-system\n", " {{ .Release.Namespace | quote }}\n"),
        (" port: 443\n", " port: {{ .Values.service.port }}\n"),
        (
            " name: admission.taskgate.dev\n",
            " name: {{ .Values.registration.name }}\n",
        ),
        (
            " failurePolicy: Ignore\n",
            " failurePolicy: {{ .Values.registration.failurePolicy }}\n",
        ),
        (
            " timeoutSeconds: 2\n",
            " timeoutSeconds: {{ .Values.registration.mutatingTimeoutSeconds }}\n",
        ),
        (
            " timeoutSeconds: 3\n",
            " timeoutSeconds: {{ .Values.registration.validatingTimeoutSeconds }}\n",
        ),
    ];
    let mut text = super::registration(&Registration::of_service(defaults::NAME, defaults::NAMESPACE))?;
    for (default, setting) in settings {
        ensure!(
            text.contains(default),
            "the registration does not have the setting{default}"
        );
        text = text.replace(default, setting);
    }
    Ok(text)
}

/// The `spec` of the `PrometheusRule`: the chart gives it another name.
fn alerts() -> Result<String> {
    let rule: Value = serde_saphyr::from_str(ALERTS).context("prometheus-rule.yaml")?;
    let text = serde_saphyr::to_string(&rule["spec"]).context("writing YAML")?;
    Ok(format!("{HEADER}{}\n", text.trim_end()))
}
