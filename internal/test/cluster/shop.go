package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kaptar/kaptar/internal/test/servers"
)

// ShopPort is the port of the node, which is 127.0.0.1 for Dial, where the gateway of the shop
// answers.
const ShopPort = 30080

// OperatorKey is the API key that the shop's local overlay gives its operator.
const OperatorKey = "operator-of-the-local-overlay-alone"

// overlay is the local one of the repository, with a PostgreSQL that runs beside the cluster, for
// there is no registry to get an image of it from. All clients have one address here, so guesses of
// passwords are not limited.
const overlay = `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: shop
resources: [%s, postgres.yaml]
generatorOptions: {disableNameSuffixHash: true}
configMapGenerator:
  - {name: settings, behavior: merge, literals: [PASSWORD_RATE=0]}
patches:
  - target: {kind: Deployment, name: postgres}
    patch: '{$patch: delete, apiVersion: any, kind: Any, metadata: {name: any}}'
  - target: {kind: Service, name: postgres}
    patch: |
      - {op: remove, path: /spec/selector}
`

const postgresSlice = `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: postgres, labels: {kubernetes.io/service-name: postgres}}
addressType: IPv4
endpoints: [{addresses: [` + nodeIP + `]}]
ports: [{name: postgres, port: 5432}]
`

// Shop builds the reference application as version v1, applies deploy/kubernetes/overlays/local in
// the namespace shop, and waits until all of it is available. PostgreSQL runs beside the cluster,
// and ends with it. Shop may be called once.
func (c *Cluster) Shop(ctx context.Context) error {
	if err := c.shop(ctx); err != nil {
		return fmt.Errorf("cluster: shop: %w", err)
	}
	return nil
}

func (c *Cluster) shop(ctx context.Context) error {
	if err := c.ShopImage(ctx, "v1", ""); err != nil {
		return err
	}
	if err := c.broker(ctx); err != nil {
		return err
	}
	if err := c.database(ctx); err != nil {
		return err
	}
	base, err := filepath.Rel(c.path("overlay"), filepath.Join(c.repository, "deploy/kubernetes/overlays/local"))
	if err == nil {
		err = os.Mkdir(c.path("overlay"), 0o700)
	}
	if err != nil {
		return err
	}
	for name, text := range map[string]string{"kustomization.yaml": fmt.Sprintf(overlay, base), "postgres.yaml": postgresSlice} {
		if err := os.WriteFile(c.path("overlay/"+name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	if _, err := c.Kubectl(ctx, "", "apply", "-k", c.path("overlay")); err != nil {
		return err
	}
	_, err = c.Kubectl(ctx, "", "-n", "shop", "wait", "--for=condition=Available", "deployment", "--all", "--timeout=120s")
	return err
}

// ShopImage builds the image localhost/shop with that version as its tag, and with further build
// tags, and imports it.
func (c *Cluster) ShopImage(ctx context.Context, version, tags string) error {
	file := c.path("shop-" + version + ".tar")
	if err := c.goes(ctx, "run", "./tools/image", "-version", version, "-tags", tags, "-out", file); err != nil {
		return err
	}
	image, err := os.Open(file)
	if err != nil {
		return err
	}
	defer image.Close()
	return c.Import(ctx, image)
}

// broker imports an image of NATS under the name that the overlay has for the official one.
func (c *Cluster) broker(ctx context.Context) error {
	program := c.path("nats-server")
	if err := c.goes(ctx, "build", "-trimpath", "-ldflags=-s -w", "-o", program, "github.com/nats-io/nats-server/v2"); err != nil {
		return err
	}
	text, err := c.Kubectl(ctx, "", "kustomize", c.repository+"/deploy/kubernetes/overlays/local")
	if err != nil {
		return err
	}
	for line := range strings.Lines(text) {
		if _, image, ok := strings.Cut(strings.TrimSpace(line), "image: "); ok && strings.Contains(image, "/nats:") {
			return c.ImportProgram(ctx, image, program)
		}
	}
	return errors.New("the local overlay has no image of NATS")
}

// database starts PostgreSQL, with what deploy/postgres makes in it, for the cluster too.
func (c *Cluster) database(ctx context.Context) (err error) {
	if c.postgres, err = servers.Start(ctx, servers.Postgres, &servers.Options{Config: "max_connections = 300"}); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(c.repository, "deploy/postgres/databases.sql"))
	if err != nil {
		return err
	}
	var statements []string // a database is made by one alone
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "CREATE") {
			statements = append(statements, line)
		}
	}
	if err := servers.Execute(ctx, c.postgres.URL(), statements...); err != nil {
		return err
	}
	return c.Expose(ctx, 5432, c.postgres.Addr(""))
}

// goes runs a go command in the repository.
func (c *Cluster) goes(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = c.repository
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := run(cmd); err != nil {
		return fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}
