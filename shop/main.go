// Command shop is kaptar's reference application: a small shop made of seven
// services, with a bank and customers simulated.
//
//	go run ./shop                      everything in one process, on embedded engines
//	go run ./shop --demo               the same with something in stock
//	go run ./shop --demo --traffic 5   and five orders a second
//	go run ./shop --split              each service a process of its own, supervised
//	shop run user-service              one service, with everything else from its settings
package main

import (
	"cmp"

	"github.com/kaptar/kaptar"
	_ "github.com/kaptar/kaptar/drivers/consul"     // consul://
	_ "github.com/kaptar/kaptar/drivers/dns"        // dns://
	_ "github.com/kaptar/kaptar/drivers/kafka"      // kafka://
	_ "github.com/kaptar/kaptar/drivers/kubernetes" // kubernetes://
	_ "github.com/kaptar/kaptar/drivers/postgres"   // postgres://
	_ "github.com/kaptar/kaptar/drivers/rabbitmq"   // amqp://
	_ "github.com/kaptar/kaptar/drivers/redis"      // redis://
	"github.com/kaptar/kaptar/shop/analytics"
	"github.com/kaptar/kaptar/shop/bank"
	"github.com/kaptar/kaptar/shop/customers"
	"github.com/kaptar/kaptar/shop/edge"
	"github.com/kaptar/kaptar/shop/inventory"
	"github.com/kaptar/kaptar/shop/notification"
	"github.com/kaptar/kaptar/shop/order"
	"github.com/kaptar/kaptar/shop/payment"
	"github.com/kaptar/kaptar/shop/user"
)

// version is set by the linker, as tools/image does (-X main.version=v2): the version of all
// services in this program. Empty, each has its own.
var version string

// services are all parts of the shop, in the order in which people meet them.
func services() []kaptar.Service {
	all := []kaptar.Service{
		edge.Service(),
		user.Service(),
		order.Service(),
		inventory.Service(),
		payment.Service(),
		notification.Service(),
		analytics.Service(),
		bank.Service(),
		customers.Service(),
	}
	for i := range all {
		all[i].Version = cmp.Or(version, all[i].Version)
	}
	return all
}
