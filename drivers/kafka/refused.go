package kafka

import (
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kaptar/kaptar/internal/tlsfiles"
)

// explain says which part of the URL made the cluster refuse the connection.
func (b *Broker) explain(err error) error {
	var closed *kgo.ErrFirstReadEOF
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return fmt.Errorf("the user %q or its password is wrong: %w", b.user, err)
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return fmt.Errorf("the cluster has no login sasl=%s for the user %q: %w", b.sasl, b.user, err)
	case errors.Is(err, kerr.IllegalSaslState):
		return fmt.Errorf("the cluster has no login at that port, and the URL names the user %q: %w", b.user, err)
	case strings.Contains(err.Error(), "client is using TLS"): // for this and the next the client has no types
		return fmt.Errorf("no TLS is spoken at that port: take the broker's port for TLS, or do without: %w", err)
	case strings.Contains(err.Error(), "tls alert record"):
		return fmt.Errorf("that port wants TLS: add the parameter tls=true: %w", err)
	case errors.As(err, &closed) && b.user == "":
		return fmt.Errorf("the URL names no user and password, which that host seems to want (or tls): %w", err)
	}
	if explained := tlsfiles.Explain(err); explained != err { //nolint:errorlint // the same value
		return explained
	}
	return fmt.Errorf("no host answers as Kafka does (wrong port, user, password or tls?): %w", err)
}

// lacks says which right the user needs, if err is about that: the given one on the topic, Read on
// the group, or one on the cluster. The names are Kafka's, as for kafka-acls.
func (b *Broker) lacks(right, topic, group string, err error) error {
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return fmt.Errorf("%s lacks the right %s on topic %s: %w", b.who(), right, topic, err)
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return fmt.Errorf("%s lacks the right Read on group %s: %w", b.who(), group, err)
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		return fmt.Errorf("%s lacks the right %s on topic %s or on the cluster: %w", b.who(), right, topic, err)
	}
	return err
}

// who names the user of the URL. Options.Client and a certificate may name one too.
func (b *Broker) who() string {
	if b.user == "" {
		return "this client"
	}
	return fmt.Sprintf("the user %q", b.user)
}
