package kubernetes

import (
	"cmp"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/params"
)

// options say where the API server is. The zero value is for a program in a pod.
type options struct {
	// Namespace of the services. Default: the pod's own; without a Server of the pod there is no
	// default.
	Namespace string

	// Server is the URL of the API server, for example "https://127.0.0.1:6443". Default: the one
	// that a pod is told with KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT; the defaults of
	// the files below are then the pod's.
	Server string

	TokenFile string // holds the bearer token; "" with a Server = none is sent. Only for https
	CAFile    string // PEM certificates that may sign the server's; "" with a Server = the system's

	Timeout time.Duration // bounds the start of each answer and each whole list; default 10 s, at least 10 ms
	Logger  *slog.Logger  // for warnings about services; default: nowhere
}

const (
	accountDir = "/var/run/secrets/kubernetes.io/serviceaccount" // where each pod finds its own
	shortest   = 10 * time.Millisecond
)

// invalid is the error for a URL. It may contain a password, so only the wrong part is shown.
func invalid(format string, args ...any) (options, error) {
	return options{}, fmt.Errorf("%w kubernetes url: %s", discovery.ErrInvalid, fmt.Sprintf(format, args...))
}

// withDefaults returns a complete copy, or says what is wrong.
func (o options) withDefaults(getenv func(string) string, account string) (options, error) {
	if o.Server == "" {
		host, port := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
		if host == "" || port == "" {
			return invalid("not in a pod, KUBERNETES_SERVICE_HOST and _PORT are not set: name the API server, as in server=https://127.0.0.1:6443")
		}
		o.Server = "https://" + net.JoinHostPort(host, port)
		o.TokenFile = cmp.Or(o.TokenFile, filepath.Join(account, "token"))
		o.CAFile = cmp.Or(o.CAFile, filepath.Join(account, "ca.crt"))
		if o.Namespace == "" {
			text, err := os.ReadFile(filepath.Join(account, "namespace"))
			if err != nil {
				return invalid("the pod's namespace: %v", err)
			}
			o.Namespace = strings.TrimSpace(string(text))
		}
	}
	if o.Namespace == "" {
		return invalid("no namespace: expected kubernetes://namespace")
	}
	if !label.MatchString(o.Namespace) {
		return invalid("namespace %q: expected lower-case letters, digits and -", o.Namespace)
	}
	server, err := url.Parse(o.Server)
	switch {
	case err != nil:
		return invalid("server: expected https://host:port")
	case server.User != nil:
		return invalid("server: it has a user, expected a token_file")
	case server.Scheme != "https" && server.Scheme != "http" || server.Host == "" || server.RawQuery != "" || server.Fragment != "":
		return invalid("server %q: expected https://host:port", o.Server)
	case server.Scheme == "http" && o.TokenFile != "":
		return invalid("server %q: expected https, since token_file is set: anybody on the path could read the token", o.Server)
	}
	o.Server = strings.TrimSuffix(o.Server, "/")
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return o, nil
}

func parse(raw string) (options, error) {
	var o options
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Scheme != "kubernetes" || u.Opaque != "":
		return invalid("expected kubernetes://[namespace][?parameters]")
	case u.User != nil:
		return invalid("it has a user, expected a token_file")
	case strings.Trim(u.Path, "/") != "" || u.Fragment != "":
		return invalid("nothing may follow the namespace but parameters, got %q", u.Path)
	}
	o.Namespace = u.Host
	err = params.Read(u.RawQuery, map[string]params.Param{
		"server": params.Text(&o.Server, "https://host:port"), "timeout": params.Duration(&o.Timeout, shortest),
		"token_file": params.Text(&o.TokenFile, "the name of a file"), "ca": params.Text(&o.CAFile, "the name of a file in PEM"),
	})
	if err != nil {
		return invalid("%v", err)
	}
	return o, nil
}

// label is the name of a namespace or a service.
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
