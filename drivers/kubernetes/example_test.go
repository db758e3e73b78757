package kubernetes_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers/kubernetes"
)

func Example() {
	// What `kubectl proxy` would answer; in a pod, "kubernetes://" is the whole URL.
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("watch") {
			<-r.Context().Done()
			return
		}
		fmt.Fprint(w, `{"kind": "EndpointSliceList", "metadata": {"resourceVersion": "7"}, "items": [{
			"metadata": {"name": "user-service-abc12"}, "addressType": "IPv4", "ports": [{"name": "http", "port": 8081}],
			"endpoints": [{"addresses": ["10.0.0.7"], "targetRef": {"kind": "Pod", "name": "user-service-5d9c-x7k2p"}, "zone": "eu-1a"}]}]}`)
	}))
	defer proxy.Close()

	registry, err := kubernetes.Open("kubernetes://shop?server="+proxy.URL, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	_ = registry.Watch(ctx, "user-service", func(list []discovery.Instance) {
		for _, in := range list {
			fmt.Println(in.ID, in.HTTP, in.Meta["zone"])
		}
		cancel()
	})
	// Output: user-service-5d9c-x7k2p 10.0.0.7:8081 eu-1a
}
