package servers

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/kaptar/kaptar/internal/tlsfiles"
)

func kubernetes() description {
	return description{
		example: "kubernetes://default?server=https://127.0.0.1:6443&token_file=/path/token&ca=/path/ca.crt",
		ports:   []port{{usual: 6443}, {name: "etcd", inner: true}},
		recipe: recipe{
			product: kubernetesProduct(), minutes: 4.5, gigabytes: 2,
			needs: []string{"etcd"}, debian: []debianPackage{{"etcd-server", onPath("etcd")}},
		},
		prepare: prepareKubernetes,
		command: kubernetesCommand,
		url: func(s *Server) string {
			q := url.Values{"server": {"https://" + s.Addr("")}, "token_file": {s.path("token")}, "ca": {s.path("ca.crt")}}
			return "kubernetes://default?" + strings.NewReplacer("%2F", "/", "%3A", ":").Replace(q.Encode()) // as people write it
		},
		ready: kubernetesReady,
	}
}

// kubernetesProduct is all programs of Kubernetes in one: the engine and the cluster are built once.
func kubernetesProduct() product {
	const version = "-X k8s.io/component-base/version."
	p := tool("kubernetes", ".")
	p.sources = append(p.sources, "tools/kubernetes/main.go")
	p.ldflags = version + "gitVersion=v1.34.3 " + version + "gitMajor=1 " + version + "gitMinor=34"
	return p
}

// administrator is the token of a user who may do everything.
const administrator = "kaptar"

// prepareKubernetes writes the token, and makes a key and a certificate that vouches for itself. A
// later start keeps those: clients trust them, and the key has signed the tokens of service
// accounts too.
func prepareKubernetes(_ context.Context, s *Server) error {
	files := [][2]string{{"token", administrator}, {"tokens.csv", administrator + `,admin,admin,"system:masters"` + "\n"}}
	if _, err := os.Stat(s.path("ca.crt")); err != nil {
		key, certificate, err := SelfSigned("127.0.0.1")
		if err != nil {
			return err
		}
		files = append(files, [2]string{"key.pem", key}, [2]string{"ca.crt", certificate}) // the one that is looked for is the last
	}
	for _, f := range files {
		if err := s.write(f[0], f[1]); err != nil {
			return err
		}
	}
	return nil
}

// SelfSigned returns a key and a certificate for names and addresses, in PEM, that an API server
// can use: it is its own authority too.
func SelfSigned(hosts ...string) (key, certificate string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	der, err := x509.MarshalECPrivateKey(private) // the form that the tokens of service accounts are signed with
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return "", "", err
	}
	text := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return text("EC PRIVATE KEY", der), text("CERTIFICATE", signed), nil
}

// kubernetesCommand runs etcd beside the API server, which is the one that is killed. Off is what
// needs time at each start and has nothing to do here: admission for pods and webhooks, the groups
// of the API that nobody uses, and the queues of clients.
func kubernetesCommand(s *Server) command {
	etcd := fmt.Sprintf("http://127.0.0.1:%d", s.ports["etcd"])
	return command{
		args: append([]string{
			s.program, "kube-apiserver", "--etcd-servers=" + etcd, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
			fmt.Sprintf("--secure-port=%d", s.ports[""]), "--tls-cert-file=" + s.path("ca.crt"), "--tls-private-key-file=" + s.path("key.pem"),
			"--token-auth-file=" + s.path("tokens.csv"), "--authorization-mode=RBAC", "--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=" + s.path("key.pem"), "--service-account-signing-key-file=" + s.path("key.pem"),
			"--service-cluster-ip-range=10.0.0.0/24", "--endpoint-reconciler-type=none", "--enable-priority-and-fairness=false",
			"--disable-admission-plugins=" + strings.Join(kubernetesOff, ","),
			"--runtime-config=api/ga=false," + strings.Join(kubernetesGroups, "=true,") + "=true",
		}, strings.Fields(s.opts.Config)...),
		helper: []string{
			"etcd", "--data-dir=" + s.path("etcd"), "--logger=zap", "--log-level=warn", "--listen-peer-urls=http://127.0.0.1:0",
			"--listen-client-urls=" + etcd, "--advertise-client-urls=" + etcd,
		},
	}
}

var (
	// kubernetesOff has the admission plugins that are on by default, but NamespaceLifecycle.
	kubernetesOff = []string{
		"CertificateApproval", "CertificateSigning", "CertificateSubjectRestriction", "ClusterTrustBundleAttest", "DefaultIngressClass",
		"DefaultStorageClass", "DefaultTolerationSeconds", "LimitRanger", "MutatingAdmissionPolicy", "MutatingAdmissionWebhook",
		"PersistentVolumeClaimResize", "PodSecurity", "PodTopologyLabels", "Priority", "ResourceQuota", "RuntimeClass", "ServiceAccount",
		"StorageObjectInUseProtection", "TaintNodesByCondition", "ValidatingAdmissionPolicy", "ValidatingAdmissionWebhook",
	}
	// kubernetesGroups has what tests use, and what the server asks itself for at its start.
	kubernetesGroups = []string{
		"v1", "discovery.k8s.io/v1", "rbac.authorization.k8s.io/v1", "authentication.k8s.io/v1", "authorization.k8s.io/v1",
		"coordination.k8s.io/v1", "networking.k8s.io/v1", "apiextensions.k8s.io/v1", "apiregistration.k8s.io/v1",
	}
)

// kubernetesReady asks the server itself, and writes: the namespace is there a moment later.
func kubernetesReady(ctx context.Context, s *Server) error {
	trust, err := (&tlsfiles.Files{On: true, CA: s.path("ca.crt")}).Config()
	if err != nil {
		return err
	}
	const lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/kaptar-servers-ready"
	for _, c := range []struct{ method, path, body string }{
		{http.MethodGet, "/readyz", ""},
		{http.MethodPut, lease, `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"kaptar-servers-ready"}}`},
		{http.MethodDelete, lease, ""},
	} {
		if _, err := Request(ctx, trust, c.method, "https://"+s.Addr("")+c.path, strings.NewReader(c.body),
			"Authorization", "Bearer "+administrator, "Content-Type", "application/json"); err != nil {
			return err
		}
	}
	return nil
}
