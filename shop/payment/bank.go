package payment

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/kaptar/kaptar/shop/internal/rest"
	"github.com/kaptar/kaptar/telemetry"
)

// timeout of one call; less than that of our callers.
const timeout = 3 * time.Second

// A bank is the API of the company that moves the money: once per Idempotency-Key.
type bank struct {
	client *http.Client
	url    string
}

// charge returns captured or declined with a reason. After an error the money may have been taken.
func (b *bank) charge(ctx context.Context, p payment) (status, string, error) {
	code, answer, err := b.post(ctx, "/charges", p)
	switch {
	case err != nil:
		return "", "", err
	case code == http.StatusPaymentRequired || code/100 == 2 && answer.Status == "declined":
		if answer.Reason == "" {
			answer.Reason = "declined by the bank"
		}
		return declined, telemetry.Cut(answer.Reason), nil
	case code/100 == 2 && answer.Status == "approved":
		return captured, "", nil
	}
	return "", "", fmt.Errorf("payment: %s/charges answered %d with status %q; expected approved or declined", b.url, code, answer.Status)
}

// refund returns nil when the money has been given back.
func (b *bank) refund(ctx context.Context, p payment) error {
	code, _, err := b.post(ctx, "/refunds", p)
	if err == nil && code/100 != 2 {
		err = fmt.Errorf("payment: %s/refunds answered %d; expected 2xx", b.url, code)
	}
	return err
}

type bankAnswer struct {
	Status string `json:"status"`
	Reason string `json:"reason"`
}

func (b *bank) post(ctx context.Context, path string, p payment) (int, bankAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	code, text, err := rest.Call(ctx, b.client, http.MethodPost, b.url+path, http.Header{"Idempotency-Key": {"order-" + strconv.FormatInt(p.OrderID, 10)}},
		map[string]int64{"order_id": p.OrderID, "amount_cents": p.AmountCents})
	if err != nil {
		return 0, bankAnswer{}, fmt.Errorf("payment: bank: %w", err)
	}
	var answer bankAnswer
	if code/100 == 2 {
		if err := json.Unmarshal(text, &answer); err != nil {
			return 0, bankAnswer{}, fmt.Errorf("payment: answer of %s%s: %w", b.url, path, err)
		}
	}
	return code, answer, nil
}
