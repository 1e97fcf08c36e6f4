{{/* The runtime "onnx". Placeholders in Mooring's braces are written as Go strings. */}}
{{- define "mooring.runtime.onnx" -}}
description: ONNX models on ONNX Runtime, by the Open Inference Protocol v2 (REST and gRPC).
formats:
- name: onnx
protocols: [open-inference-v2]
{{- include "mooring.runtimeImage" (list . .Values.images.onnxServer) }}
args:
- --model-dir
- {{ "{{ model.path }}" | quote }}
- --model-name
- {{ "{{ model.name }}" | quote }}
- --port
- "8080"
- --grpc-port
- "9000"
ports:
- name: http
  containerPort: 8080
- name: grpc
  containerPort: 9000
  appProtocol: kubernetes.io/h2c
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
terminationGracePeriodSeconds: 60
metrics:
  port: http
  path: /metrics
signals:
  requests: {{ "sum by ({{ by }}) (mooring_onnx_request_duration_seconds_count{{{ selector }}})" | quote }}
  errors: {{ `sum by ({{ by }}) (mooring_onnx_request_duration_seconds_count{code=~"5..",{{ selector }}})` | quote }}
  latency:
    unit: seconds
    sum: {{ "sum by ({{ by }}) (mooring_onnx_request_duration_seconds_sum{{{ selector }}})" | quote }}
    count: {{ "sum by ({{ by }}) (mooring_onnx_request_duration_seconds_count{{{ selector }}})" | quote }}
    buckets: {{ "sum by ({{ by }}, le) (mooring_onnx_request_duration_seconds_bucket{{{ selector }}})" | quote }}
{{- end -}}
