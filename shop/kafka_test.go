package main

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/kaptar/kaptar/kaptartest"
)

// TestAnotherBroker runs the shop as it is on another broker: a URL is all that
// changes. The broker here is Kafka's protocol in this process.
func TestAnotherBroker(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	sys := kaptartest.StartWith(t, &kaptartest.Options{Settings: map[string]string{
		"broker_url": "kafka://" + strings.Join(cluster.ListenAddrs(), ",") + "?partitions=2", "demo": "true",
		"auth.keys.operator.sha256": fmt.Sprintf("%x", sha256.Sum256([]byte(operatorKey))), "auth.keys.operator.scopes": "*",
	}}, services()...)
	sys.Do(http.MethodPost, "gateway", "/v1/users", `{"username":"ada","email":"ada@example.com","password":"correct horse"}`)
	resp := sys.Do(http.MethodPost, "gateway", "/v1/orders", `{"user_id":1,"items":[{"sku":"tea","quantity":2}]}`, "X-Api-Key", operatorKey)
	if resp.Status != http.StatusCreated {
		t.Fatalf("order: got %d %s, want 201", resp.Status, resp.Body)
	}
	begun := time.Now()
	for path, part := range map[string]string{
		"/v1/orders/1": `"confirmed"`, "/v1/mails/1": "confirmed", "/v1/sales": `"orders":1,`, "/v1/stock/tea": `"available":98`,
	} {
		eventually(t, func() string {
			if resp := sys.Do(http.MethodGet, "gateway", path, "", "X-Api-Key", operatorKey); !strings.Contains(resp.Body, part) {
				return fmt.Sprintf("GET %s: %s does not say %s", path, resp.Body, part)
			}
			return ""
		})
	}
	t.Logf("all was there after %v", time.Since(begun))
}
