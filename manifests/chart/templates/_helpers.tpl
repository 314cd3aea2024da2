{{- define "taskgate.name" -}}
{{ default .Chart.Name .Values.nameOverride }}
{{- end }}

{{/* The base of all names. It starts with a letter for any release name, and is short enough for suffixes. */}}
{{- define "taskgate.fullname" -}}
{{- $name := include "taskgate.name" . -}}
{{- $release := regexReplaceAll "[^a-z0-9]+" .Release.Name "-" -}}
{{- $full := hasPrefix $name $release | ternary $release (printf "%s-%s" $name $release) -}}
{{- default $full .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "taskgate.serviceAccount" -}}
{{ default (include "taskgate.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{/* The name of the Secret with the certificate, and of cert-manager's Certificate. */}}
{{- define "taskgate.certificate" -}}
{{ include "taskgate.fullname" . }}-{{ eq .Values.certificates.mode "cert-manager" | ternary "tls" "serving-cert" }}
{{- end }}

{{- define "taskgate.image" -}}
{{- $version := .Chart.AppVersion -}}
{{- with .Values.image -}}
{{- $repository := list .registry .repository | compact | join "/" -}}
{{- $digest := .digest | empty | ternary "" (printf "@%s" .digest) -}}
{{ printf "%s:%s%s" $repository (default $version .tag) $digest | quote }}
{{- end }}
{{- end }}

{{- define "taskgate.selector" -}}
app.kubernetes.io/name: {{ include "taskgate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* The labels of the pods of hooks. No Service and no spread constraint selects them. */}}
{{- define "taskgate.hookSelector" -}}
app.kubernetes.io/name: {{ include "taskgate.name" . }}-hook
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* The labels of pods besides their selector, from `root` and `labels`. */}}
{{- define "taskgate.podLabels" -}}
{{ merge (dict "app.kubernetes.io/part-of" "taskgate") (default (dict) .labels) .root.Values.commonLabels | toYaml }}
{{- end }}

{{/* Annotations, and labels last: an object can have further ones. The argument has `root`, and `annotations` and `labels` if there are any. */}}
{{- define "taskgate.metadata" -}}
{{- with merge (dict) (default (dict) .annotations) .root.Values.commonAnnotations -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{ end -}}
labels:
  {{- include "taskgate.selector" .root | nindent 2 }}
  {{- include "taskgate.podLabels" . | nindent 2 }}
{{- with .root }}
  app.kubernetes.io/managed-by: {{ .Release.Service }}
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
  helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
{{- end }}

{{- define "taskgate.registrationMetadata" -}}
{{- $annotations := .Values.registration.annotations -}}
{{- if eq .Values.certificates.mode "cert-manager" -}}
{{- $certificate := printf "%s/%s" .Release.Namespace (include "taskgate.certificate" .) -}}
{{- $annotations = merge (dict "cert-manager.io/inject-ca-from" $certificate) $annotations -}}
{{- end -}}
{{ include "taskgate.metadata" (dict "root" . "annotations" $annotations) }}
{{- end }}

{{/* The rest of a namespaceSelector, after the first matchExpressions. */}}
{{- define "taskgate.namespaceSelector" -}}
{{- with .Values.registration.namespaceSelector -}}
{{- with .matchExpressions -}}
{{ toYaml . }}
{{ end -}}
{{- with .matchLabels -}}
matchLabels:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* The objectSelector of the webhooks for Tasks: only the fields that are set. */}}
{{- define "taskgate.objectSelector" -}}
{{- $selector := dict -}}
{{- range $field, $value := .Values.registration.objectSelector -}}
{{- if $value -}}
{{- $_ := set $selector $field $value -}}
{{- end -}}
{{- end -}}
{{ toYaml $selector }}
{{- end }}

{{/* The pull secrets of a ServiceAccount. */}}
{{- define "taskgate.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- toYaml . | nindent 0 }}
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

{{/* The pod of a hook, from `root`, `account` and `args`. */}}
{{- define "taskgate.hookPod" -}}
serviceAccountName: {{ .account }}
restartPolicy: Never
{{- with .root }}
{{- include "taskgate.placement" . }}
{{- with .Values.affinity.nodeAffinity }}
# No rules between pods, because this pod runs once beside the others.
affinity:
  nodeAffinity:
    {{- toYaml . | nindent 4 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end }}
containers:
- name: taskgate
  image: {{ include "taskgate.image" .root }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
  {{- toYaml .args | nindent 2 }}
  {{- with .root.Values.env }}
  env:
  {{- toYaml . | nindent 2 }}
  {{- end }}
  resources:
    {{- toYaml .root.Values.resources | nindent 4 }}
  securityContext:
    {{- toYaml .root.Values.containerSecurityContext | nindent 4 }}
{{- end }}

{{/* The egress of all pods: to DNS, to the API server, and networkPolicy.extraEgress. A rule without ports would allow all. */}}
{{- define "taskgate.egress" -}}
- ports:
  - port: 53
    protocol: UDP
  - port: 53
    protocol: TCP
{{- with .Values.networkPolicy.apiServerPorts }}
- ports:
  {{- range . }}
  - port: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{/* The ports of the issue sources. */}}
{{- define "taskgate.sourceEgress" -}}
{{- $ports := list "443" -}}
{{- with .Values.sources -}}
{{- range prepend .hosts .githubAPI -}}
{{- $ports = append $ports (regexFind ":[0-9]+(/|$)" . | trimAll ":/") -}}
{{- end -}}
{{- $ports = append $ports (regexFind ":[0-9]+(/|$)" .ghproxyURL | trimAll ":/" | default (hasPrefix "http:" .ghproxyURL | ternary "80" "443")) -}}
{{- end -}}
- ports:
  {{- range $ports | compact | uniq }}
  - port: {{ . }}
  {{- end }}
{{- end }}

{{/* Seconds: the lame duck, 10 s drain, 5 s for the rest, and 10 s in reserve. */}}
{{- define "taskgate.gracePeriod" -}}
{{- $start := toDate "2006" "2000" -}}
{{- $end := dateModify .Values.admission.lameDuck $start -}}
{{ sub (unixEpoch $end) (unixEpoch $start) | add 25 }}
{{- end }}
