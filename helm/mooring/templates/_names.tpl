{{- define "mooring.name" -}}
{{- default .Release.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "mooring.selector" -}}
app.kubernetes.io/name: mooring-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "mooring.nodeCacheLabels" -}}
{{ include "mooring.nodeCacheSelector" . }}
{{ include "mooring.commonLabels" . }}
{{- end -}}

{{- define "mooring.labels" -}}
{{ include "mooring.selector" . }}
{{ include "mooring.commonLabels" . }}
{{- end -}}

{{- define "mooring.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: mooring
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "mooring.nodeCache" -}}
{{ include "mooring.name" . }}-node-cache
{{- end -}}

{{/* Not the operator's, or its Service and policies would take the cache's pods for its own. */}}
{{- define "mooring.nodeCacheSelector" -}}
app.kubernetes.io/name: mooring-node-cache
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "mooring.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "mooring.name" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The name of an image without its tag: (list $ .Values.images.operator) */}}
{{- define "mooring.imageName" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- with $image.registry | default $root.Values.images.registry }}{{ . | trimSuffix "/" }}/{{ end }}{{ $image.repository -}}
{{- end -}}

{{- define "mooring.imageTag" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- default $root.Chart.AppVersion $image.tag -}}
{{- end -}}

{{- define "mooring.image" -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ include "mooring.imageName" . }}@{{ $image.digest }}
{{- else -}}
{{ include "mooring.imageName" . }}:{{ include "mooring.imageTag" . }}
{{- end -}}
{{- end -}}

{{/* Cluster-scoped objects beside the CRDs are for cluster-wide installations only. */}}
{{- define "mooring.clusterwide" -}}
{{- if not .Values.namespaces }}true{{ end -}}
{{- end -}}

{{/* The lease is named after the release, so that two releases in a namespace do not share one. */}}
{{- define "mooring.lease" -}}
{{- include "mooring.name" . -}}-leader
{{- end -}}
