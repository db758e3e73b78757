package notification

import (
	"fmt"
	"strings"

	"github.com/kaptar/kaptar/shop/events"
)

// The texts of the mails.

func welcome(u events.UserV1) events.EmailSendV1 {
	return events.EmailSendV1{
		UserID:  u.UserID,
		Subject: "Welcome to the shop, " + u.Username,
		Body:    fmt.Sprintf("Hello %s,\n\nyour account is ready.\n", u.Username),
	}
}

func confirmed(o events.OrderV1) events.EmailSendV1 {
	return events.EmailSendV1{
		UserID:  o.UserID,
		Subject: fmt.Sprintf("Order %d is confirmed", o.OrderID),
		Body:    fmt.Sprintf("We are sending you\n%sfor %s.\n", lines(o.Items), money(o.TotalCents)),
	}
}

func cancelled(o events.OrderV1) events.EmailSendV1 {
	return events.EmailSendV1{
		UserID:  o.UserID,
		Subject: fmt.Sprintf("Order %d is cancelled", o.OrderID),
		Body:    fmt.Sprintf("We are sorry: %s.\nYou have paid nothing for\n%s", o.Reason, lines(o.Items)),
	}
}

func lines(items []events.ItemV1) string {
	var b strings.Builder
	for _, i := range items {
		fmt.Fprintf(&b, "  %d × %s at %s\n", i.Quantity, i.SKU, money(i.PriceCents))
	}
	return b.String()
}

func money(cents int64) string { return fmt.Sprintf("%d.%02d", cents/100, cents%100) }
