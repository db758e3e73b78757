package kubernetes

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kaptar/kaptar/discovery"
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

	Timeout time.Duration // how long the start of an answer, and a whole list, may take; default 10 s, at least 10 ms
	Logger  *slog.Logger  // for warnings about services; default: nowhere
}

const (
	accountDir = "/var/run/secrets/kubernetes.io/serviceaccount" // where each pod finds its own
	shortest   = 10 * time.Millisecond
)

// withDefaults returns a complete copy, or says what is wrong.
func (o options) withDefaults(getenv func(string) string, account string) (options, error) {
	fail := func(format string, args ...any) (options, error) {
		return o, fmt.Errorf("%w kubernetes options: %s", discovery.ErrInvalid, fmt.Sprintf(format, args...))
	}
	if o.Server == "" {
		host, port := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
		if host == "" || port == "" {
			return fail("this is no pod, KUBERNETES_SERVICE_HOST and _PORT are not set: name the API server, as in server=https://127.0.0.1:6443")
		}
		o.Server = "https://" + net.JoinHostPort(host, port)
		o.TokenFile = cmp.Or(o.TokenFile, filepath.Join(account, "token"))
		o.CAFile = cmp.Or(o.CAFile, filepath.Join(account, "ca.crt"))
		if o.Namespace == "" {
			text, err := os.ReadFile(filepath.Join(account, "namespace"))
			if err != nil {
				return fail("the pod's namespace: %v", err)
			}
			o.Namespace = strings.TrimSpace(string(text))
		}
	}
	if o.Namespace == "" {
		return fail("they name no namespace, want kubernetes://namespace")
	}
	if !isLabel(o.Namespace) {
		return fail("namespace %q: want lower-case letters, digits and -", o.Namespace)
	}
	server, err := url.Parse(o.Server)
	switch {
	case err != nil:
		return fail("server: want https://host:port")
	case server.User != nil:
		return fail("server: it has a user, want a token_file")
	case server.Scheme != "https" && server.Scheme != "http" || server.Host == "" || server.RawQuery != "" || server.Fragment != "":
		return fail("server %q: want https://host:port", o.Server)
	case server.Scheme == "http" && o.TokenFile != "":
		return fail("server %q: a token is sent over https only, everybody on the way could read it", o.Server)
	}
	o.Server = strings.TrimSuffix(o.Server, "/")
	if o.Timeout = cmp.Or(o.Timeout, 10*time.Second); o.Timeout < shortest {
		return fail("timeout=%v: want at least %v", o.Timeout, shortest)
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return o, nil
}

// parse reads a URL, see the package comment.
func parse(raw string) (options, error) {
	var o options
	fail := func(format string, args ...any) (options, error) {
		// The URL itself may hold a password by mistake, so only the part that is wrong is shown.
		return o, fmt.Errorf("%w kubernetes url: %s", discovery.ErrInvalid, fmt.Sprintf(format, args...))
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return fail("want kubernetes://[namespace][?parameters]")
	case u.Opaque != "" || u.Scheme != "kubernetes":
		return fail("%q: want kubernetes:// with two slashes", u.Scheme+":"+u.Opaque)
	case u.User != nil:
		return fail("it has a user, want a token_file")
	case strings.Trim(u.Path, "/") != "" || u.Fragment != "":
		return fail("nothing may follow the namespace but parameters, got %q", u.Path)
	}
	o.Namespace = u.Host
	params, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return fail("its parameters cannot be read, want name=value&name=value")
	}
	for name, values := range params {
		if len(values) > 1 {
			return fail("parameter %s is there %d times", name, len(values))
		}
		if err := o.set(name, values[0]); err != nil {
			return fail("parameter %s: %v", name, err)
		}
	}
	return o, nil
}

func (o *options) set(name, value string) (err error) {
	if value == "" {
		return errors.New("it has no value")
	}
	switch name {
	case "server":
		o.Server = value
	case "token_file":
		o.TokenFile = value
	case "ca_file":
		o.CAFile = value
	case "timeout":
		if o.Timeout, err = time.ParseDuration(value); err != nil || o.Timeout < shortest {
			err = fmt.Errorf("%q: want a duration of at least %v, such as 10s", value, shortest)
		}
	default:
		err = errors.New("unknown, want ca_file, server, timeout or token_file")
	}
	return err
}

// isLabel reports whether s can be the name of a namespace or a service.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
