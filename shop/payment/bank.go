package payment

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

const (
	patience  = 3 * time.Second // with one call; less than our callers have with us
	maxAnswer = 64 << 10        // bytes that are read of an answer
)

// A bank is the API of the company that moves the money. It does each thing once
// per Idempotency-Key, so that every call may be repeated.
type bank struct {
	client *http.Client
	url    string
}

// charge returns captured or declined, with the bank's reason, or an error when
// the bank did not say: the money may have been taken even then.
func (b *bank) charge(ctx context.Context, p payment) (status, string, error) {
	code, answer, err := b.post(ctx, "/charges", p)
	switch {
	case err != nil:
		return "", "", err
	case code == http.StatusPaymentRequired || code/100 == 2 && answer.Status == "declined":
		if answer.Reason == "" {
			answer.Reason = "declined by the bank"
		}
		return declined, answer.Reason, nil
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
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	body, err := json.Marshal(map[string]int64{"order_id": p.OrderID, "amount_cents": p.AmountCents})
	if err != nil {
		return 0, bankAnswer{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url+path, bytes.NewReader(body))
	if err != nil {
		return 0, bankAnswer{}, fmt.Errorf("payment: bank_url: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", "order-"+strconv.FormatInt(p.OrderID, 10))
	resp, err := b.client.Do(req)
	if err != nil {
		return 0, bankAnswer{}, fmt.Errorf("payment: bank: %w", err)
	}
	defer resp.Body.Close()
	var answer bankAnswer
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && resp.StatusCode/100 == 2 {
		err = json.Unmarshal(text, &answer)
	}
	if err != nil {
		return 0, bankAnswer{}, fmt.Errorf("payment: answer of %s%s: %w", b.url, path, err)
	}
	return resp.StatusCode, answer, nil
}
