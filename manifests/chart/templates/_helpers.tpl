{{/* The base of all names. It starts with a letter for any release name, and is short enough for suffixes. */}}
{{- define "taskgate.fullname" -}}
{{- $release := regexReplaceAll "[^a-z0-9]+" .Release.Name "-" -}}
{{- $name := hasPrefix "taskgate" $release | ternary $release (printf "taskgate-%s" $release) -}}
{{- default $name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* The name of the Secret with the certificate, and of cert-manager's Certificate. */}}
{{- define "taskgate.certificate" -}}
{{ include "taskgate.fullname" . }}-{{ eq .Values.certificates.mode "cert-manager" | ternary "tls" "serving-cert" }}
{{- end }}

{{- define "taskgate.image" -}}
{{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) | quote }}
{{- end }}

{{- define "taskgate.selector" -}}
app.kubernetes.io/name: taskgate
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* The labels of the hook's pod. No Service and no spread constraint selects them. */}}
{{- define "taskgate.hookSelector" -}}
app.kubernetes.io/name: taskgate-uninstall
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "taskgate.labels" -}}
{{ include "taskgate.selector" . }}
app.kubernetes.io/part-of: taskgate
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* The pull secrets of a ServiceAccount. */}}
{{- define "taskgate.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* The placement of all pods. */}}
{{- define "taskgate.placement" -}}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Egress to DNS and to networkPolicy.egressPorts. A rule without ports would allow all. */}}
{{- define "taskgate.egress" -}}
- ports:
  - port: 53
    protocol: UDP
  - port: 53
    protocol: TCP
{{- with .Values.networkPolicy.egressPorts }}
- ports:
  {{- range . }}
  - port: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Seconds: the lame duck, 10 s drain, 5 s for the rest, and 10 s in reserve. */}}
{{- define "taskgate.gracePeriod" -}}
{{- $start := toDate "2006" "2000" -}}
{{- $end := dateModify .Values.admission.lameDuck $start -}}
{{ sub (unixEpoch $end) (unixEpoch $start) | add 25 }}
{{- end }}

{{/* The fields that Pod Security "restricted" requires, and a read-only root. */}}
{{- define "taskgate.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "taskgate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
  - ALL
{{- end }}

{{- define "taskgate.registrationAnnotations" }}
{{- if eq .Values.certificates.mode "cert-manager" }}
  annotations:
    cert-manager.io/inject-ca-from: {{ printf "%s/%s" .Release.Namespace (include "taskgate.certificate" .) }}
{{- end }}
{{- end }}
