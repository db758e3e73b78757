-- +goose Up
CREATE TABLE orders (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id         BIGINT NOT NULL,
    idempotency_key TEXT,            -- NULL: the client sent none
    items           TEXT   NOT NULL, -- JSON; written once, read with the order only
    total_cents     BIGINT NOT NULL,
    status          TEXT   NOT NULL CHECK (status IN ('pending', 'confirmed', 'cancelled')),
    reason          TEXT   NOT NULL DEFAULT '',
    created_at      BIGINT NOT NULL,
    -- the checkout
    step            TEXT   NOT NULL CHECK (step IN ('reserve', 'charge', 'ship', 'release', 'done')),
    attempts        BIGINT NOT NULL DEFAULT 0, -- of this step
    next_at         BIGINT NOT NULL,           -- when the next one is due
    version         BIGINT NOT NULL DEFAULT 0, -- counts the changes of the checkout
    traceparent     TEXT   NOT NULL DEFAULT '', -- of the request that placed the order
    UNIQUE (user_id, idempotency_key)
);
CREATE INDEX orders_due ON orders (next_at) WHERE step <> 'done';

-- +goose Down
DROP TABLE orders;
