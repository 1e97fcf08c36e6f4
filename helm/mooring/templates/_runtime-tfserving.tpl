{{/* The runtime "tfserving". */}}
{{- define "mooring.runtime.tfserving" -}}
description: TensorFlow SavedModels on TensorFlow Serving (REST and gRPC).
formats:
- name: tensorflow
- name: savedmodel
protocols: [tfserving]
{{- include "mooring.runtimeImage" (list . .Values.images.tfserving) }}
layout: tfserving
# Not the image's entrypoint, which names a model of its own.
command: [tensorflow_model_server]
args:
- --port=8500
- --rest_api_port=8501
- --rest_api_timeout_in_ms=30000
- --model_config_file=/etc/mooring/tfserving/models.config
- --monitoring_config_file=/etc/mooring/tfserving/monitoring.config
# The model lies on the pod's own disk: it is looked for once, and what does not load at once never
# will. The server then ends with the reason.
- --file_system_poll_wait_seconds=0
- --max_num_load_retries=0
# Requests in the SavedModel's assets.extra/tf_serving_warmup_requests are played first.
- --enable_model_warmup=true
- --enable_grpc_healthcheck_service=true
config:
# The version is pinned: without a policy the newest folder would be served.
- path: /etc/mooring/tfserving/models.config
  content: |
    model_config_list {
      config {
        name: {{ "'{{ model.name }}'" }}
        base_path: {{ "'{{ model.path }}'" }}
        model_platform: 'tensorflow'
        model_version_policy { specific { versions: {{ "{{ model.version }}" }} } }
      }
    }
- path: /etc/mooring/tfserving/monitoring.config
  content: |
    prometheus_config { enable: true, path: "/monitoring/prometheus/metrics" }
# Off unless spec.runtime.args has --enable_batching=true and
# --batching_parameters_file=/etc/mooring/tfserving/batching.config: not every model takes batches.
- path: /etc/mooring/tfserving/batching.config
  content: |
    max_batch_size { value: 128 }
    batch_timeout_micros { value: 2000 }
    max_enqueued_batches { value: 64 }
    num_batch_threads { value: 4 }
ports:
- name: http
  containerPort: 8501
- name: grpc
  containerPort: 8500
  appProtocol: kubernetes.io/h2c
# TCP on the REST port, which opens when the model is loaded. Asking for the model's state would
# answer 200 in any state, and count as a good request.
readinessProbe:
  tcpSocket:
    port: http
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 3
livenessProbe:
  tcpSocket:
    port: http
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
# A model may take ten minutes to load.
startupProbe:
  tcpSocket:
    port: http
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 300
resources:
  requests:
    cpu: 250m
    memory: 512Mi
  limits:
    memory: 4Gi
terminationGracePeriodSeconds: 60
metrics:
  port: http
  path: /monitoring/prometheus/metrics
signals:
  requests: {{ "sum by ({{ by }}) (:tensorflow:serving:request_count{{{ selector }}})" | quote }}
  # What the client did wrong is no error of the model.
  errors: {{ `sum by ({{ by }}) (:tensorflow:serving:request_count{status!~"OK|INVALID_ARGUMENT|NOT_FOUND|CANCELLED",{{ selector }}})` | quote }}
  latency:
    unit: microseconds
    sum: {{ "sum by ({{ by }}) (:tensorflow:serving:request_latency_sum{{{ selector }}})" | quote }}
    count: {{ "sum by ({{ by }}) (:tensorflow:serving:request_latency_count{{{ selector }}})" | quote }}
    buckets: {{ "sum by ({{ by }}, le) (:tensorflow:serving:request_latency_bucket{{{ selector }}})" | quote }}
  caveat: Latency is of successful answers only. Asking for a model's state counts as a request.
{{- end -}}
