// Package kubernetes is a discovery.Registry over the EndpointSlices of a Kubernetes API server.
// Kubernetes itself registers the pods behind each Service object; this package lists and watches
// them with net/http alone. Import it for its scheme. In a pod the URL is
//
//	kubernetes://[namespace]
//
// with the pod's own namespace, service account and certificate authority. Outside a cluster it
// names the server:
//
//	kubernetes://namespace?server=https://127.0.0.1:6443&token_file=/path/token&ca=/path/ca.crt
//	kubernetes://namespace?server=http://127.0.0.1:8001      (kubectl proxy)
//
// The parameters are server, token_file, ca and timeout, which bounds the start of each answer and
// each whole list (default 10s). Files are read for each request, so rotated tokens and authorities
// are used at once.
//
// The name of a service is the name of its Service object in that namespace. Other namespaces are
// not searched: a name with a dot is not a service here but a host.
//
// An endpoint is listed while it is ready and not terminating. Its addresses are the ports named
// "http" and "grpc"; a single port without a name is HTTP, or gRPC if its appProtocol is grpc. ID
// is the name of the pod, or service@address for an endpoint without one; Version is its label
// app.kubernetes.io/version; Meta has "zone" and "node" where Kubernetes knows them; Tags are
// empty. An endpoint in several slices is listed once, with IPv4 before IPv6.
//
// For the versions the metadata of the pods with that label is watched, once for all services. If
// that is forbidden a warning is logged, and versions are empty.
//
// The service account needs this and no more:
//
//	apiVersion: rbac.authorization.k8s.io/v1
//	kind: Role
//	metadata: {name: kaptar-discovery, namespace: shop}
//	rules:
//	- apiGroups: [discovery.k8s.io]
//	  resources: [endpointslices]
//	  verbs: [get, list, watch]
//	- apiGroups: [""]
//	  resources: [pods]
//	  verbs: [get, list, watch]
//	---
//	apiVersion: rbac.authorization.k8s.io/v1
//	kind: RoleBinding
//	metadata: {name: kaptar-discovery, namespace: shop}
//	roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: kaptar-discovery}
//	subjects:
//	- {kind: ServiceAccount, name: default, namespace: shop}
//
// While the API server is away or refuses, the last list stays in use, requests are repeated with
// growing pauses, and the outage and its end are logged once each.
package kubernetes
