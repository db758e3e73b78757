// Package payment is payment-service: it takes money for orders, at a bank that may be away.
package payment

import (
	"context"
	"database/sql"
	"embed"
	"strconv"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/shop/events"
	"github.com/kaptar/kaptar/shop/internal/rest"
	paymentv1 "github.com/kaptar/kaptar/shop/proto/payment/v1"
)

//go:embed migrations
var migrations embed.FS

type settings struct {
	BankURL string `config:"bank_url" default:"http://bank" help:"the bank's API; a service name or any other host"`
}

// Service returns payment-service.
func Service() kaptar.Service {
	set := new(settings)
	return kaptar.Service{
		Name: "payment-service", Version: "v1",
		Listen: ":8084", GRPCListen: ":50054",
		Settings: set,
		Setup:    func(app *kaptar.App) error { return setup(app, set) },
	}
}

func setup(app *kaptar.App, set *settings) error {
	db, err := app.DB(migrations)
	if err != nil {
		return err
	}
	captured, err := messaging.NewPublisher(app, events.PaymentCaptured)
	if err != nil {
		return err
	}
	st := &store{db: db, publish: func(ctx context.Context, tx *sql.Tx, p payment) error {
		return captured.Publish(ctx, tx, strconv.FormatInt(p.OrderID, 10),
			events.PaymentCapturedV1{OrderID: p.OrderID, UserID: p.UserID, AmountCents: p.AmountCents})
	}}
	s := &service{store: st, bank: &bank{client: app.Client(), url: set.BankURL}, log: app.Logger()}
	paymentv1.RegisterPaymentServiceServer(app.GRPC(), &rpc{service: s})
	api, err := rest.New(app, "Payments", auth.Policies{
		"GET /payments/{order_id}":     auth.Authenticated(), // and the owner's, which only the database knows
		"/payment.v1.PaymentService/*": auth.Service("order-service"),
	})
	if err != nil {
		return err
	}
	routes(api, st)
	return nil
}
