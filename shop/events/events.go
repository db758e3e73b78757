// Package events declares every topic of the shop and the data of its events. A topic belongs to
// the service that publishes it. Other services may rely on the fields here: fields are added, but
// never changed or removed.
package events

import "github.com/kaptar/kaptar/messaging"

// A user has signed up, or has changed. From user-service; key: user id.
var (
	UserRegistered = messaging.Topic[UserV1]{Name: "user.registered.v1", DataSchema: schemas + "user.registered.v1.json"}
	UserChanged    = messaging.Topic[UserV1]{Name: "user.changed.v1", DataSchema: schemas + "user.changed.v1.json"}
)

// UserV1 is the data of the users' topics: the user after the event.
type UserV1 struct {
	UserID   int64  `json:"user_id"`
	Username string `json:"username"`
	Email    string `json:"email"`
}

// An order was placed, and its checkout has ended. From order-service; key: order id.
var (
	OrderPlaced    = messaging.Topic[OrderV1]{Name: "order.placed.v1", DataSchema: schemas + "order.placed.v1.json"}
	OrderConfirmed = messaging.Topic[OrderV1]{Name: "order.confirmed.v1", DataSchema: schemas + "order.confirmed.v1.json"}
	OrderCancelled = messaging.Topic[OrderV1]{Name: "order.cancelled.v1", DataSchema: schemas + "order.cancelled.v1.json"}
)

// OrderV1 is the data of the orders' topics.
type OrderV1 struct {
	OrderID    int64    `json:"order_id"`
	UserID     int64    `json:"user_id"`
	Items      []ItemV1 `json:"items"`
	TotalCents int64    `json:"total_cents"`
	Reason     string   `json:"reason,omitempty"` // why it was cancelled
}

// ItemV1 is one line of an order.
type ItemV1 struct {
	SKU        string `json:"sku"`
	Quantity   int64  `json:"quantity"`
	PriceCents int64  `json:"price_cents"` // of one piece
}

// StockChanged says what is available and reserved of a sku. From inventory-service; key: sku. It
// is ordered, because the last event counts.
var StockChanged = messaging.Topic[StockChangedV1]{Name: "stock.changed.v1", Ordered: true, DataSchema: schemas + "stock.changed.v1.json"}

// StockChangedV1 is the data of StockChanged.
type StockChangedV1 struct {
	SKU       string `json:"sku"`
	Available int64  `json:"available"`
	Reserved  int64  `json:"reserved"`
}

// PaymentCaptured says that the bank has paid for an order. From payment-service; key: order id.
var PaymentCaptured = messaging.Topic[PaymentCapturedV1]{Name: "payment.captured.v1", DataSchema: schemas + "payment.captured.v1.json"}

// PaymentCapturedV1 is the data of PaymentCaptured.
type PaymentCapturedV1 struct {
	OrderID     int64 `json:"order_id"`
	UserID      int64 `json:"user_id"`
	AmountCents int64 `json:"amount_cents"`
}

// EmailSend is notification-service's work queue: one mail to send per event. Key: user id.
var EmailSend = messaging.Topic[EmailSendV1]{Name: "email.send.v1", DataSchema: schemas + "email.send.v1.json"}

// EmailSendV1 is the data of EmailSend.
type EmailSendV1 struct {
	UserID  int64  `json:"user_id"`
	Subject string `json:"subject"`
	Body    string `json:"body"`
}
