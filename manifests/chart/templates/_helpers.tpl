{{/* The name of everything: starts with a letter, whatever the release is called, and leaves room for suffixes. */}}
{{- define "taskgate.fullname" -}}
{{- $release := regexReplaceAll "[^a-z0-9]+" .Release.Name "-" -}}
{{- $name := hasPrefix "taskgate" $release | ternary $release (printf "taskgate-%s" $release) -}}
{{- default $name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* The Secret with the certificate, and the Certificate of cert-manager. */}}
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

{{/* Pods of the hook: no Service leads to them, and no replica is spread by them. */}}
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

{{/* What a ServiceAccount gives to the pods that run as it. */}}
{{- define "taskgate.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where every pod of taskgate may run. */}}
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

{{/* Names, and the ports that the values name. A rule without ports would allow every one. */}}
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

{{/* In seconds: the lame duck, 10 s of drain, 5 s for the rest, and 10 s to spare. */}}
{{- define "taskgate.gracePeriod" -}}
{{- $start := toDate "2006" "2000" -}}
{{- $end := dateModify .Values.admission.lameDuck $start -}}
{{ sub (unixEpoch $end) (unixEpoch $start) | add 25 }}
{{- end }}

{{/* What restricted Pod Security asks for, and a root that cannot be written. */}}
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
