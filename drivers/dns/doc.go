// Package dns is a discovery.Registry that reads DNS, for systems whose platform writes the
// records: Kubernetes headless services, Docker Compose, Consul, or a zone of your own. Import it
// for its scheme:
//
//	dns://[server[:port]]/[domain][?http=8080&grpc=50051&interval=5s&srv=plain]
//
// server is the DNS server (port 53 unless given); without it the system's resolver is used, with
// its search list. domain is appended to the name of every service, if given. The parameters:
//
//	http, grpc   the port of each address for which SRV records name none
//	interval     how often the records are looked up, about: ±10 %; default 5s, at least 10ms
//	timeout      how long the look-up of one service may take as a whole; default 2s
//	srv          "plain" asks for SRV records of the name itself, "none" for no SRV records at all
//	protocol     "udp" (which goes on to TCP when an answer is cut) or "tcp"; default udp, and tcp with srv=plain
//
// For the service "orders" in the domain "shop.example" the instances come from
//
//  1. the SRV records of _http._tcp.orders.shop.example and _grpc._tcp.orders.shop.example, with srv=plain those of
//     orders.shop.example, which name the HTTP port. Their targets are looked up at the same server.
//  2. If there are none, and http or grpc is set, the addresses of orders.shop.example.
//
// The HTTP and gRPC ports of one address form one Instance, whose ID is service@address as with
// discovery.Static. An address with several ports of a kind has several instances: equal ports are
// paired first, the rest in numerical order. IPv6 addresses are looked up only for names without an
// IPv4 address, so that a host with both is one instance. Of the SRV records only those with the
// best priority are used; weights are ignored. Version, Tags and Meta are empty, as DNS does not
// have them.
//
// With Consul, whose DNS server leaves records out of long answers over UDP without saying so, the
// URL is
//
//	dns://127.0.0.1:8600/service.consul?srv=plain
//
// (package drivers/consul knows more and sees changes at once), with Kubernetes headless services
//
//	dns:///shop.svc.cluster.local
//
// and in Docker Compose, where every service has the same ports,
//
//	dns:///?srv=none&http=8080&grpc=50051
//
// A name that does not exist has no instances. When the server fails or does not answer, the last
// list stays in use, the look-up is repeated with growing pauses, and the outage and its end are
// logged once.
package dns
