-- +goose Up
CREATE TABLE payments (
    order_id     BIGINT PRIMARY KEY,
    user_id      BIGINT NOT NULL,
    amount_cents BIGINT NOT NULL CHECK (amount_cents >= 0),
    status       TEXT   NOT NULL CHECK (status IN ('pending', 'captured', 'declined', 'refunded')),
    reason       TEXT   NOT NULL DEFAULT '', -- why it was declined
    changed_at   BIGINT NOT NULL
);

-- +goose Down
DROP TABLE payments;
