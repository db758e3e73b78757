package kaptar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/internal/identity"
	"github.com/kaptar/kaptar/telemetry"
)

// identify loads the service's certificate, if the settings name one. Calls to other services
// present it, and callers must present one unless tls.client is none.
func (a *App) identify() (err error) {
	set := &a.settings.TLS
	if set.Cert == "" {
		return nil
	}
	if a.identity, err = identity.Load(a.Name(), set, a.Logger()); err != nil {
		return err
	}
	a.transport.Options().TLS = a.identity.Client()
	if set.Client != "none" {
		a.server.Options().CheckPeer = a.identity.CheckPeer
	}
	telemetry.Register(a.Metrics(), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tls_certificate_expiry_timestamp_seconds", Help: "When the certificate in force ends, in Unix time.",
		ConstLabels: prometheus.Labels{"service": a.Name()},
	}, func() float64 { return float64(a.identity.Expires().Unix()) }))
	a.tasks = append(a.tasks, task{"certificates", true, func(ctx context.Context) error {
		return a.identity.Watch(ctx, a.transport.Renew)
	}})
	return nil
}

// secure makes the ports serve TLS. Without TLS it keeps them on loopback: a default address is
// changed to loopback, and any other address that is not loopback is refused.
func (a *App) secure() error {
	o := a.server.Options()
	if a.identity != nil && o.TLS == nil {
		o.TLS = a.identity.Server(o.CheckPeer != nil)
	}
	if o.TLS != nil || a.settings.Plaintext {
		return nil
	}
	errs := []error{a.confine("listen", &o.HTTP, o.HTTPSetting)}
	if a.server.HasGRPC() {
		errs = append(errs, a.confine("grpc_listen", &o.GRPC, o.GRPCSetting))
	}
	return errors.Join(errs...)
}

// confine does this for one address, which has the setting key and the environment variable
// variable.
func (a *App) confine(key string, at *string, variable string) error {
	host, port, _ := net.SplitHostPort(*at)
	if port == "" || host == "localhost" || net.ParseIP(host).IsLoopback() {
		return nil // binding reports what is no address
	}
	values := a.config.Values()
	i := slices.IndexFunc(values, func(v config.Value) bool { return v.Service == a.Name() && v.Key == key })
	if host == "" && i >= 0 && (values[i].Origin == "default" || values[i].Origin == "set in code") {
		*at = net.JoinHostPort("127.0.0.1", port)
		a.Logger().Info("listening on loopback only, as there is no TLS; for other machines set tls.cert, tls.key and tls.ca, "+
			"or plaintext=true where the network is trusted", "address", *at)
		return nil
	}
	return fmt.Errorf("%s=%s would serve other machines in plain text, which others on the network can read and change: "+
		"set TLS_CERT, TLS_KEY and TLS_CA, or %[1]s=127.0.0.1:%[3]s behind a proxy on this machine, "+
		"or PLAINTEXT=true where the network is trusted", variable, *at, port)
}
