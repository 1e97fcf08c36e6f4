{{/* Image and version of a shipped runtime: (list $ .Values.images.onnxServer). A digest leaves no
version to choose. Placeholders in Mooring's braces are written as Go strings. */}}
{{- define "mooring.runtimeImage" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- if $image.digest }}
image: {{ include "mooring.image" . }}
{{- else }}
image: {{ printf "%s:{{ runtime.version }}" (include "mooring.imageName" .) | quote }}
version: {{ include "mooring.imageTag" . | quote }}
{{- end }}
imagePullPolicy: {{ $root.Values.images.pullPolicy }}
{{- if not $root.Values.security.setRunAsUser }}
security:
  setRunAsUser: false
{{- end }}
{{- end -}}
