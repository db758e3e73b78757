package transport

import (
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/kaptar/kaptar/internal/wanted"
)

// PrincipalHeader is the header with the principal of a call between services, as package auth
// writes it. Over gRPC it is the metadata key of the same name in lower case.
const PrincipalHeader = "Kaptar-Principal"

const principalKey = "kaptar-principal"

// identify sets the principal and the wishes of the call. It removes such headers from the request
// itself, which may have been copied from an incoming request and are for this service only. After
// a redirect to another host it also removes an API key, as http.Client does with Authorization.
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
	c.want(len(h["Authorization"])+len(h["X-Api-Key"]) > 0)
}

func (c *rpcCall) identify() {
	md, _ := metadata.FromOutgoingContext(c.ctx) // a copy, but most calls have none
	if len(md[principalKey]) > 0 || len(md[wanted.Metadata]) > 0 {
		delete(md, principalKey)
		delete(md, wanted.Metadata)
		c.ctx = metadata.NewOutgoingContext(c.ctx, md)
	}
	c.want(len(md["authorization"])+len(md["x-api-key"]) > 0)
}

// want sets the principal, unless the call has a credential of its own, and the wishes.
func (c *call) want(own bool) {
	if c.t.opts.Principal != nil && c.tg.bare && !own {
		c.principal = c.t.opts.Principal(c.ctx, c.tg.service)
	}
	c.wants = wanted.From(c.ctx)
	if c.alone = c.wants != nil && c.wants.Instance != ""; c.alone {
		c.again = false
	}
}

// sends returns the principal and the versions to send to the instance of the attempt. A bare name
// that was found through DNS need not be the service, unless its certificate shows that it is.
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

// strayed refuses a redirect from another host to a service: that host could choose what is called
// in this service's name.
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
