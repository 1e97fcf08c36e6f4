{{/*
What the operator may do in a namespace that it serves. No verb on Secrets: credentials are mounted
by the kubelet. No Roles, no bindings, and children are written by server-side apply alone, which is
`patch` for what exists and `create` besides for what does not. tests/helm pins every rule.
*/}}
{{- define "mooring.rules" -}}
- apiGroups: [mooring.dev]
  resources: [modeldeployments, modelruntimes, retrainingrequests]
  verbs: [get, list, watch]
- apiGroups: [mooring.dev]
  resources: [modeldeployments/status]
  verbs: [patch, update]
# Requests for new models are made once and never changed; how far they are stands in their status.
- apiGroups: [mooring.dev]
  resources: [retrainingrequests]
  verbs: [create, delete]
- apiGroups: [mooring.dev]
  resources: [retrainingrequests/status]
  verbs: [patch]
# Children carry an owner reference that blocks deletion; OpenShift asks for this then.
- apiGroups: [mooring.dev]
  resources: [modeldeployments/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [controllerrevisions, deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps, serviceaccounts, services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
# For router gateway alone; where the Gateway API is not installed this grants nothing.
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# A Job that trains is made from a PodTemplate, and goes with its request.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create]
- apiGroups: [""]
  resources: [podtemplates]
  verbs: [get]
# The last words of a container that does not become ready. Patched is one annotation of router pods,
# mooring.dev/routes-version: so the kubelet brings them their new routes at once, not in a minute.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
