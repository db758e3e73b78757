package export_test

import (
	"fmt"

	"github.com/kaptar/kaptar/rollout/export"
)

// The weights of a release as a route of the Gateway API.
func ExampleHTTPRoute() {
	text, err := export.HTTPRoute(map[string]int{"v1": 95, "v2": 5}, export.Options{Service: "user-service", Gateway: "edge"})
	fmt.Printf("%s%v\n", text, err)
	// Output:
	// apiVersion: gateway.networking.k8s.io/v1
	// kind: HTTPRoute
	// metadata:
	//   name: user-service
	// spec:
	//   parentRefs:
	//     - name: edge
	//   rules:
	//     - backendRefs:
	//         - name: user-service-v1
	//           port: 80
	//           weight: 95
	//         - name: user-service-v2
	//           port: 80
	//           weight: 5
	// <nil>
}
