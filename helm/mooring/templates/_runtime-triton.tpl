{{/* The runtime "triton". */}}
{{- define "mooring.runtime.triton" -}}
description: Models of many formats on NVIDIA Triton, by the Open Inference Protocol v2 (REST and gRPC).
formats:
- name: onnx
- name: tensorrt
- name: torchscript
- name: triton
protocols: [open-inference-v2]
{{- include "mooring.runtimeImage" (list . .Values.images.triton) }}
layout: triton
command: [tritonserver]
args:
- {{ "--model-repository={{ model.path }}" | quote }}
- --model-control-mode=none
# A model that does not load ends the server, with the reason in its log.
- --exit-on-error=true
- --strict-readiness=true
- --http-port=8000
- --grpc-port=8001
- --metrics-port=8002
- --exit-timeout-secs=55
env:
- {name: HOME, value: /tmp}
ports:
- name: http
  containerPort: 8000
- name: grpc
  containerPort: 8001
  appProtocol: kubernetes.io/h2c
- name: metrics
  containerPort: 8002
  service: false
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
# Triton itself may take minutes: it starts its backends and looks for devices first.
startupProbe:
  httpGet:
    path: /v2/health/live
    port: http
  periodSeconds: 3
  timeoutSeconds: 2
  failureThreshold: 200
resources:
  requests:
    cpu: 500m
    memory: 2Gi
  limits:
    memory: 8Gi
terminationGracePeriodSeconds: 60
metrics:
  port: metrics
  path: /metrics
signals:
  requests: {{ "sum by ({{ by }}) (nv_inference_request_success{{{ selector }}}) + (sum by ({{ by }}) (nv_inference_request_failure{{{ selector }}}) or 0 * sum by ({{ by }}) (nv_inference_request_success{{{ selector }}}))" | quote }}
  errors: {{ "sum by ({{ by }}) (nv_inference_request_failure{{{ selector }}})" | quote }}
  latency:
    unit: microseconds
    sum: {{ "sum by ({{ by }}) (nv_inference_request_duration_us{{{ selector }}})" | quote }}
    count: {{ "sum by ({{ by }}) (nv_inference_request_success{{{ selector }}})" | quote }}
  caveat: A mean only, of successful answers; no quantiles unless Triton is told to keep histograms.
{{- end -}}
