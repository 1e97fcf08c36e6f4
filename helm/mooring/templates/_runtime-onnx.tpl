{{/* The runtime "onnx". Placeholders in Mooring's braces are written as Go strings. */}}
{{- define "mooring.runtime.onnx" -}}
{{- $image := .Values.images.onnxServer -}}
description: ONNX models on ONNX Runtime, by the Open Inference Protocol v2 (REST).
formats:
- name: onnx
protocols: [open-inference-v2]
{{- if $image.digest }}
image: {{ include "mooring.image" (list . $image) }}
{{- else }}
image: {{ printf "%s:{{ runtime.version }}" (include "mooring.imageName" (list . $image)) | quote }}
version: {{ include "mooring.imageTag" (list . $image) | quote }}
{{- end }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
args:
- --model-dir
- {{ "{{ model.path }}" | quote }}
- --model-name
- {{ "{{ model.name }}" | quote }}
- --port
- "8080"
ports:
- name: http
  containerPort: 8080
# The model, not the server: it answers after the warm-up.
readinessProbe:
  httpGet:
    path: {{ "/v2/models/{{ model.name }}/ready" | quote }}
    port: http
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 3
livenessProbe:
  httpGet:
    path: /v2/health/live
    port: http
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
# A model may take ten minutes to load; the liveness probe waits for that.
startupProbe:
  httpGet:
    path: /v2/health/live
    port: http
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 300
resources:
  requests:
    cpu: 100m
    memory: 256Mi
  limits:
    memory: 2Gi
{{- if not .Values.security.setRunAsUser }}
security:
  setRunAsUser: false
{{- end }}
terminationGracePeriodSeconds: 60
metrics:
  port: http
  path: /metrics
{{- end -}}
