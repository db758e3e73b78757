package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
)

// maxAnswer is how many bytes of an answer Call reads.
const maxAnswer = 1 << 20

// Call sends body as JSON, unless it is nil, with an Idempotency-Key, unless that is "".
func Call(ctx context.Context, client *http.Client, method, url, key string, body any) (status int, answer []byte, err error) {
	var payload bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&payload).Encode(body); err != nil {
			return 0, nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, url, &payload)
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp.StatusCode, answer, err
}
