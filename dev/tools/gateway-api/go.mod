// The definitions of the Gateway API, which tests install. No Go package of it is built, so
// `go mod tidy` would remove it: to change the version, edit it here and run
// `go mod download sigs.k8s.io/gateway-api`.
module mooring.dev/dev/tools/gateway-api

go 1.26.0

require sigs.k8s.io/gateway-api v1.6.3
