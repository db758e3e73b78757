// Command onlyuser is user-service alone, as it would be deployed: without package
// local. It exists to be measured (make bench-shop).
package main

import (
	"github.com/kaptar/kaptar"
	_ "github.com/kaptar/kaptar/drivers/nats"
	_ "github.com/kaptar/kaptar/drivers/postgres"
	_ "github.com/kaptar/kaptar/drivers/redis"
	"github.com/kaptar/kaptar/shop/user"
)

func main() { kaptar.Main(user.Service()) }
