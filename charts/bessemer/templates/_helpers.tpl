{{- define "bessemer.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "bessemer.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "bessemer.name" . -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Name of cluster-scoped objects: installs that watch some namespaces only can stand beside each other. */}}
{{- define "bessemer.clusterName" -}}
{{- $name := include "bessemer.fullname" . -}}
{{- ternary (printf "%s-%s" $name .Release.Namespace) $name (gt (len .Values.watchNamespaces) 0) -}}
{{- end -}}

{{- define "bessemer.operator" -}}
{{- printf "%s-operator" (include "bessemer.fullname" .) -}}
{{- end -}}

{{- define "bessemer.account" -}}
{{- default (ternary (include "bessemer.operator" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "bessemer.username" -}}
{{- printf "system:serviceaccount:%s:%s" .Release.Namespace (include "bessemer.account" .) -}}
{{- end -}}

{{- define "bessemer.selector" -}}
app.kubernetes.io/name: {{ include "bessemer.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "bessemer.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "bessemer.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* An image as a digest where there is one. Arguments: the values of the image, the chart's appVersion. */}}
{{- define "bessemer.image" -}}
{{- $image := index . 0 -}}
{{- $name := ternary (printf "%s/%s" $image.registry $image.repository) $image.repository (ne $image.registry "") -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default (index . 1) $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The profiles file: each profile with the chart's trainer image where it names none. */}}
{{- define "bessemer.profiles" -}}
{{- $image := include "bessemer.image" (list .Values.trainerImage .Chart.AppVersion) -}}
{{- range $name, $profile := .Values.profiles }}
{{ $name }}:
{{- toYaml (merge (deepCopy $profile) (dict "image" $image)) | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The operator's rights in every namespace that it works in. No wildcard, nothing about secrets, exec or roles. */}}
{{- define "bessemer.rules" -}}
- apiGroups: [bessemer.dev]
  resources: [adaptationpipelines, trainingstages, mergejobs, evaluations]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [bessemer.dev]
  resources: [adaptationpipelines/status, trainingstages/status, mergejobs/status, evaluations/status]
  verbs: [patch]
- apiGroups: [kubeflow.org]
  resources: [pytorchjobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# Why Kueue holds an attempt back.
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [get, create, patch]
{{- end -}}

{{- define "bessemer.trainerSelector" -}}
matchLabels: {app.kubernetes.io/managed-by: bessemer}
matchExpressions:
- {key: bessemer.dev/attempt, operator: Exists}
{{- end -}}
