// Package notification is notification-service: it writes to the shop's users.
//
// What happens in the shop becomes a mail in two steps. An event of another service puts an
// email.send.v1 into this service's own work queue, and whichever instance takes it from there
// sends it: a mail that cannot be sent is tried again by itself, and many of them do not keep the
// service from following the shop. A sent mail is a row in the database: sending is simulated.
package notification

import (
	"embed"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/shop/internal/rest"
)

//go:embed migrations
var migrations embed.FS

// Service returns notification-service.
func Service() kaptar.Service {
	return kaptar.Service{Name: "notification-service", Version: "v1", Listen: ":8085", Setup: setup}
}

func setup(app *kaptar.App) error {
	db, err := app.DB(migrations)
	if err != nil {
		return err
	}
	mails := store{db}
	api, err := rest.New(app, "Mails", auth.Policies{"GET /mails/{user_id}": auth.Any(auth.Owner("user_id"), auth.Scope("mails:read"))})
	if err != nil {
		return err
	}
	huma.Register(api, rest.Op("list-mails", "GET /mails/{user_id}", "List the mails to a user, newest first"), mails.get)
	return subscribe(app, mails)
}
