package transport

import (
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/kaptar/kaptar/internal/wanted"
)

// PrincipalHeader carries who a call between services is made for, as package auth writes it; over
// gRPC the metadata of that name in lower case does.
const PrincipalHeader = "Kaptar-Principal"

const principalKey = "kaptar-principal"

// identify asks in whose name the call is made, and where it may go. A header of the request's own, such as one that was
// copied from an incoming request, is for this service alone, and an API key for the host that it was
// meant for: http.Client takes an Authorization to no other host, but that along.
func (c *httpCall) identify() {
	h := c.req.Header
	away := len(h["X-Api-Key"]) > 0 && !strings.EqualFold(origin(c.req), c.req.URL.Host)
	if away || len(h[PrincipalHeader]) > 0 || len(h[wanted.Header]) > 0 {
		c.req = c.req.Clone(c.req.Context())
		c.req.Header.Del(PrincipalHeader)
		c.req.Header.Del(wanted.Header)
		if away {
			c.req.Header.Del("X-Api-Key")
		}
	}
	if c.t.opts.Principal != nil && c.tg.bare && len(h["Authorization"]) == 0 && len(h["X-Api-Key"]) == 0 {
		c.principal = c.t.opts.Principal(c.ctx, c.tg.service)
	}
	c.want()
}

func (c *rpcCall) identify() {
	md, _ := metadata.FromOutgoingContext(c.ctx) // a copy, but most calls have none
	if len(md[principalKey]) > 0 || len(md[wanted.Metadata]) > 0 {
		delete(md, principalKey)
		delete(md, wanted.Metadata)
		c.ctx = metadata.NewOutgoingContext(c.ctx, md)
	}
	if c.t.opts.Principal != nil && c.tg.bare && len(md["authorization"]) == 0 && len(md["x-api-key"]) == 0 {
		c.principal = c.t.opts.Principal(c.ctx, c.tg.service)
	}
	c.want()
}

func (c *call) want() {
	c.wants = wanted.From(c.ctx)
	if c.alone = c.wants != nil && c.wants.Instance != ""; c.alone {
		c.again = false
	}
}

// sends are the principal and the versions for the instance of the attempt: what DNS has found for a
// bare name need not be the service, unless its certificate shows it.
func (c *call) sends() (principal, versions string) {
	if c.external {
		return "", ""
	}
	if c.tg.bare {
		versions = c.wants.Text()
	}
	return c.principal, versions
}

// origin is the host that a client has asked before it followed redirects.
func origin(req *http.Request) string {
	for req.Response != nil && req.Response.Request != nil {
		req = req.Response.Request
	}
	return req.URL.Host
}

// strayed finds a request with which a client follows a redirect to a service from anywhere else:
// whoever wrote that would choose what is called in this service's name.
func strayed(req *http.Request) error {
	if req.Response == nil || strings.ContainsAny(req.URL.Host, ".:") {
		return nil
	}
	from := "another host"
	if before := req.Response.Request; before != nil && before.URL != nil {
		from = before.URL.Host
	}
	if strings.EqualFold(from, req.URL.Host) {
		return nil
	}
	return fmt.Errorf("transport: a redirect of %s to the service %s, which would be called in this service's name, is not followed: "+
		"expected one within %[1]s, or to a host with a dot", from, req.URL.Host)
}
