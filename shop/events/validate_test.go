package events_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/shop/events"
)

// TestValidate: what another program may publish is believed only within its ranges.
func TestValidate(t *testing.T) {
	t.Parallel()
	const item = `{"sku":"tea","quantity":2,"price_cents":900}`
	order := func(rest string) string { return `{"order_id":1,"user_id":1,` + rest + `}` }
	for _, tt := range []struct {
		into  interface{ Validate() error }
		data  string
		wrong string // what the error names; "": it is right
	}{
		{new(events.OrderV1), order(`"items":[` + item + `],"total_cents":1800`), ""},
		{new(events.OrderV1), order(`"items":[` + item + `],"total_cents":1800,"reason":"sold out"`), ""},
		{new(events.OrderV1), order(`"items":[` + item + `],"total_cents":-100000000`), "total_cents"},
		{new(events.OrderV1), order(`"items":[` + item + `],"total_cents":1801`), "total_cents"},
		{new(events.OrderV1), order(`"items":[],"total_cents":0`), "number of items"},
		{new(events.OrderV1), order(`"items":[` + strings.Repeat(item+",", 50) + item + `],"total_cents":91800`), "number of items"},
		{new(events.OrderV1), order(`"items":[{"sku":"tea","quantity":-2,"price_cents":900}],"total_cents":-1800`), "quantity"},
		{new(events.OrderV1), order(`"items":[{"sku":"tea","quantity":9223372036854775807,"price_cents":2}],"total_cents":-2`), "quantity"},
		{new(events.OrderV1), order(`"items":[{"sku":"tea","quantity":1,"price_cents":-900}],"total_cents":-900`), "price_cents"},
		{new(events.OrderV1), order(`"items":[{"sku":"","quantity":2,"price_cents":900}],"total_cents":1800`), "sku"},
		{new(events.OrderV1), order(`"items":[` + item + `],"total_cents":1800,"reason":"` + strings.Repeat("x", 5000) + `"`), "reason"},
		{new(events.OrderV1), `{"order_id":0,"user_id":1,"items":[` + item + `],"total_cents":1800}`, "order_id"},
		{new(events.OrderV1), `{"order_id":1,"user_id":-1,"items":[` + item + `],"total_cents":1800}`, "user_id"},
		{new(events.OrderV1), `null`, "order_id"},
		{new(events.PaymentCapturedV1), `{"order_id":1,"user_id":1,"amount_cents":1}`, ""},
		{new(events.PaymentCapturedV1), `{"order_id":1,"user_id":1,"amount_cents":50000000000000}`, ""},
		{new(events.PaymentCapturedV1), `{"order_id":1,"user_id":1,"amount_cents":9223372036854775807}`, "amount_cents"},
		{new(events.PaymentCapturedV1), `{"order_id":1,"user_id":1,"amount_cents":0}`, "amount_cents"},
		{new(events.PaymentCapturedV1), `{"order_id":1,"user_id":1,"amount_cents":-100000000}`, "amount_cents"},
		{new(events.PaymentCapturedV1), `{"amount_cents":1}`, "order_id"},
		{new(events.StockChangedV1), `{"sku":"tea","available":0,"reserved":0}`, ""},
		{new(events.StockChangedV1), `{"sku":"tea","available":-1,"reserved":0}`, "available"},
		{new(events.StockChangedV1), `{"sku":"tea","available":0,"reserved":9223372036854775807}`, "reserved"},
		{new(events.StockChangedV1), `{"available":0}`, "sku"},
		{new(events.UserV1), `{"user_id":1,"username":"ada","email":"ada@example.com"}`, ""},
		{new(events.UserV1), `{"user_id":0,"username":"ada","email":"ada@example.com"}`, "user_id"},
		{new(events.UserV1), `{"user_id":1,"username":"","email":"ada@example.com"}`, "username"},
		{new(events.UserV1), `{"user_id":1,"username":"ada","email":"` + strings.Repeat("x", 121) + `"}`, "email"},
		{new(events.EmailSendV1), `{"user_id":1,"subject":"Hello","body":""}`, ""},
		{new(events.EmailSendV1), `{"user_id":0,"subject":"Hello","body":""}`, "user_id"},
		{new(events.EmailSendV1), `{"user_id":1,"subject":"","body":""}`, "subject"},
		{new(events.EmailSendV1), `{"user_id":1,"subject":"Hello","body":"` + strings.Repeat("x", 70_000) + `"}`, "body"},
	} {
		if err := json.Unmarshal([]byte(tt.data), tt.into); err != nil {
			t.Fatalf("%s: %v", tt.data, err)
		}
		err := tt.into.Validate()
		if (err == nil) != (tt.wrong == "") || err != nil && !strings.Contains(err.Error(), tt.wrong) {
			t.Errorf("%T %.150s: %v, want %q to be wrong", tt.into, tt.data, err, tt.wrong)
		}
	}
}

// FuzzOrder: whatever is taken for an order has a total that can be added up.
func FuzzOrder(f *testing.F) {
	f.Add([]byte(`{"order_id":1,"user_id":1,"items":[{"sku":"tea","quantity":2,"price_cents":900}],"total_cents":1800}`))
	f.Add([]byte(`{"order_id":1,"user_id":1,"items":[{"sku":"tea","quantity":9223372036854775807,"price_cents":2}],"total_cents":-2}`))
	f.Add([]byte(`{"items":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var o events.OrderV1
		if json.Unmarshal(data, &o) != nil || o.Validate() != nil {
			return
		}
		var total int64
		for _, i := range o.Items {
			total += i.Quantity * i.PriceCents
		}
		if o.OrderID < 1 || o.UserID < 1 || o.TotalCents != total || total < 0 || total > events.MaxCents {
			t.Errorf("taken: %+v", o)
		}
	})
}

func ExamplePaymentCapturedV1_Validate() {
	fmt.Println(events.PaymentCapturedV1{OrderID: 1, UserID: 1, AmountCents: math.MaxInt64}.Validate())
	// Output: events: amount_cents 9223372036854775807: expected 1 to 50000000000000
}
