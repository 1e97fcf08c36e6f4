{{/* The runtime "torchserve". files/torchserve/serve.py says why TorchServe does not run alone. */}}
{{- define "mooring.runtime.torchserve" -}}
description: PyTorch models in model archives (.mar) on TorchServe.
formats:
- name: torchscript
- name: pytorch
protocols: [torchserve]
{{- include "mooring.runtimeImage" (list . .Values.images.torchserve) }}
layout: torchserve
# Not the image's own entrypoint, which would outlive a dead server.
command:
- python
- /etc/mooring/torchserve/serve.py
- start
args:
- {{ "{{ model.path }}" | quote }}
- {{ "{{ model.name }}" | quote }}
- /etc/mooring/torchserve/config.properties
# spec.runtime.env changes what config.properties says (TS_JOB_QUEUE_SIZE, for example), and sets
# workers and batches: TORCHSERVE_MIN_WORKERS, TORCHSERVE_MAX_WORKERS, TORCHSERVE_BATCH_SIZE,
# TORCHSERVE_MAX_BATCH_DELAY_MS, TORCHSERVE_RESPONSE_TIMEOUT_SECONDS.
env:
- {name: HOME, value: /tmp}
- {name: TEMP, value: /tmp}
- {name: LOG_LOCATION, value: /tmp/logs}
- {name: METRICS_LOCATION, value: /tmp/logs}
config:
- path: /etc/mooring/torchserve/serve.py
  content: |
    {{- .Files.Get "files/torchserve/serve.py" | nindent 4 }}
- path: /etc/mooring/torchserve/config.properties
  content: |
    inference_address=http://0.0.0.0:8080
    # Whoever reaches the management API can load code: loopback only, and in no Service.
    management_address=http://127.0.0.1:8081
    grpc_management_address=127.0.0.1
    grpc_management_port=7071
    metrics_address=http://0.0.0.0:8082
    grpc_inference_address=0.0.0.0
    grpc_inference_port=7070
    metrics_mode=prometheus
    # Tokens would be made anew at each start and be known to nobody.
    disable_token_authorization=true
    allowed_urls=file
    install_py_dep_per_model=false
    enable_envvars_config=true
    default_workers_per_model=1
ports:
- name: http
  containerPort: 8080
- name: grpc
  containerPort: 7070
  appProtocol: kubernetes.io/h2c
- name: metrics
  containerPort: 8082
  service: false
# The model, not the server: a worker that is READY, asked for on loopback.
readinessProbe:
  exec:
    command: [python, /etc/mooring/torchserve/serve.py, ready, {{ "{{ model.name }}" | quote }}]
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
livenessProbe:
  tcpSocket:
    port: http
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
# A model may take ten minutes to load.
startupProbe:
  exec:
    command: [python, /etc/mooring/torchserve/serve.py, ready, {{ "{{ model.name }}" | quote }}]
  periodSeconds: 3
  timeoutSeconds: 5
  failureThreshold: 200
resources:
  requests:
    cpu: 250m
    memory: 1Gi
  limits:
    memory: 4Gi
terminationGracePeriodSeconds: 60
metrics:
  port: metrics
  path: /metrics
signals:
  requests: {{ "sum by ({{ by }}) (ts_inference_requests_total{{{ selector }}})" | quote }}
  errors: {{ "sum by ({{ by }}) (Requests5XX{{{ selector }}})" | quote }}
  latency:
    unit: microseconds
    sum: {{ "sum by ({{ by }}) (ts_inference_latency_microseconds{{{ selector }}})" | quote }}
    # Failed requests are in the first and not in the sum; the second is absent until one failed.
    count: {{ "sum by ({{ by }}) (ts_inference_requests_total{{{ selector }}}) - (sum by ({{ by }}) (Requests5XX{{{ selector }}}) or 0 * sum by ({{ by }}) (ts_inference_requests_total{{{ selector }}}))" | quote }}
  caveat: >-
    A mean only, of successful answers; no quantiles. A handler's exception is a 503 and so an error,
    also when the request was at fault. Requests by gRPC are counted without their time and failures.
{{- end -}}
