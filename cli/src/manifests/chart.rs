//! The generated files of the Helm chart. The settings of an installation are templates in them; everything else comes from
//! the same code as the manifests for kustomize.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use taskgate_api::keys;
use taskgate_webhook::{ClientTarget, ConfigurationName, FailurePolicy, Registration, TimeoutSeconds};

use super::{HEADER, registration};
use crate::{
    defaults,
    rights::{Feature, Names, limits, manifest::RoleManifests},
};

const NAME: &str = "{{ include \"taskgate.fullname\" . }}";
const LABELS: &str = "\n    {{- include \"taskgate.labels\" . | nindent 4 }}";
/// The alerting rules, for clusters with the Prometheus operator.
const ALERTS: &str = include_str!("../../../manifests/components/monitoring/prometheus-rule.yaml");
const DASHBOARD: &str = include_str!("../../../manifests/components/monitoring/dashboard.json");

/// Every generated file of the chart but the CRDs, by its path in the chart.
pub(super) fn files() -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("templates/registration.yaml", format!("{HEADER}{}", template()?)),
        ("templates/rbac.yaml", format!("{HEADER}{}", roles())),
        ("templates/limits.yaml", format!("{HEADER}{}", limits())),
        ("files/alerts.yaml", alerts()?),
        ("files/dashboard.json", DASHBOARD.to_owned()),
    ])
}

fn names() -> Names {
    Names {
        without: Vec::new(),
        configuration: "{{ .Values.registration.name }}".to_owned(),
        certificate: format!("{NAME}-serving-cert"),
        issued: format!("{NAME}-tls"),
        lease: format!("{NAME}-controller"),
        kueue_config: "{{ splitList \"/\" .Values.kueue.config | last | quote }}".to_owned(),
    }
}

fn roles() -> String {
    let names = names();
    let roles = RoleManifests {
        name: NAME,
        namespace: "{{ .Release.Namespace | quote }}",
        labels: LABELS,
        names: &names,
        feature_guard,
    };
    roles.roles()
}

/// The roles of a feature are installed where the values enable it.
fn feature_guard(feature: Feature) -> [String; 2] {
    [
        format!("{{{{- if .Values.features.{} }}}}\n", feature.value()),
        "{{- end }}\n".to_owned(),
    ]
}

/// Where the API server has ValidatingAdmissionPolicies and the values do not disable them.
fn limits() -> String {
    let roles = RoleManifests {
        name: NAME,
        // It is part of a longer text.
        namespace: "{{ .Release.Namespace }}",
        labels: LABELS,
        names: &names(),
        feature_guard,
    };
    format!(
        "{{{{- if and .Values.rights.admissionPolicies (semverCompare \">=1.30-0\" .Capabilities.KubeVersion.Version) }}}}\n{}\
         {{{{- end }}}}\n",
        limits::policies(&roles)
    )
}

/// The registration with its settings as templates. It is rendered with two sets of settings: the lines that differ are the settings.
fn template() -> Result<String> {
    let usual = Registration::of_service(defaults::NAME, defaults::NAMESPACE);
    let mut other = Registration::of_service("other", "elsewhere");
    other.name = "another.taskgate.dev".parse::<ConfigurationName>()?;
    other.client = ClientTarget::Service {
        name: "other".to_owned(),
        namespace: "elsewhere".to_owned(),
        port: 8443,
    };
    other.foreign_failure = FailurePolicy::Fail;
    other.mutating_timeout = TimeoutSeconds::new(5)?;
    other.validating_timeout = TimeoutSeconds::new(5)?;
    let (usual, other) = (registration(&usual)?, registration(&other)?);
    ensure!(
        usual.lines().count() == other.lines().count(),
        "a setting of the registration changes more than a line"
    );
    let mut text = String::new();
    for (line, other) in usual.lines().zip(other.lines()) {
        if line == other {
            text.push_str(line);
        } else {
            let (key, value) = line
                .rsplit_once(' ')
                .context("a line of the registration is no entry")?;
            text.push_str(key);
            text.push(' ');
            text.push_str(setting(value)?);
        }
        text.push('\n');
    }
    let labels = format!("\n    {}: {}", keys::PART_OF, keys::PART_OF_TASKGATE);
    ensure!(text.contains(&labels), "the registration has no labels");
    let annotated = format!("{{{{- include \"taskgate.registrationAnnotations\" . }}}}\n  labels:{LABELS}");
    Ok(text.replace(&format!("labels:{labels}"), &annotated))
}

fn setting(value: &str) -> Result<&'static str> {
    Ok(match value {
        defaults::NAME => NAME,
        defaults::NAMESPACE => "{{ .Release.Namespace | quote }}",
        "443" => "{{ .Values.service.port }}",
        "Ignore" => "{{ .Values.registration.failurePolicy }}",
        "2" => "{{ .Values.registration.mutatingTimeoutSeconds }}",
        "3" => "{{ .Values.registration.validatingTimeoutSeconds }}",
        "admission.taskgate.dev" => "{{ .Values.registration.name }}",
        unknown => bail!("{unknown:?} is a setting of the registration that the chart does not know"),
    })
}

/// The `spec` of the `PrometheusRule`: the chart gives it another name.
fn alerts() -> Result<String> {
    let rule: Value = serde_saphyr::from_str(ALERTS).context("prometheus-rule.yaml")?;
    let text = serde_saphyr::to_string(&rule["spec"]).context("writing YAML")?;
    Ok(format!("{HEADER}{}\n", text.trim_end()))
}
