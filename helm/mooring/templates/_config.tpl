{{/* /etc/mooring/config.yaml, as operator/mooring/settings.py reads it. */}}
{{- define "mooring.config" -}}
images:
  fetcher: {{ include "mooring.image" (list . .Values.images.fetcher) }}
  router: {{ include "mooring.image" (list . .Values.images.router) }}
  collector: {{ include "mooring.image" (list . .Values.images.collector) }}
namespaces: {{ toJson (default list .Values.namespaces) }}
requireDigest: {{ .Values.config.requireDigest }}
imageVolumes: {{ .Values.config.imageVolumes }}
maxModelGibibytes: {{ .Values.config.maxModelGibibytes }}
{{- if .Values.nodeCache.enabled }}
nodeCache: {service: {{ include "mooring.nodeCache" . }}, port: {{ .Values.nodeCache.port }}}
{{- end }}
{{- if not (kindIs "invalid" .Values.config.modelStores) }}
{{- if .Values.config.modelStores }}
modelStores:
  {{- toYaml .Values.config.modelStores | nindent 2 }}
{{- else }}
modelStores: []
{{- end }}
{{- end }}
prometheus:
  {{- toYaml .Values.config.prometheus | nindent 2 }}
{{- with .Values.config.registry }}
registry:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.config.sinks }}
sinks:
  {{- toYaml . | nindent 2 }}
{{- end }}
drain: {{ .Values.config.drain }}
preStopSeconds: {{ .Values.config.preStopSeconds }}
clusterDomain: {{ .Values.config.clusterDomain | quote }}
resync: {{ .Values.config.resync }}
workers: {{ .Values.config.workers }}
lease:
  name: {{ include "mooring.lease" . }}
  {{- with .Values.config.lease }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
port: 8080
{{- end -}}
