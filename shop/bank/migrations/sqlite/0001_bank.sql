-- +goose Up
CREATE TABLE charges (
    idempotency_key TEXT   PRIMARY KEY,
    order_id        BIGINT NOT NULL,
    amount_cents    BIGINT NOT NULL,
    status          TEXT   NOT NULL CHECK (status IN ('undecided', 'approved', 'declined')),
    reason          TEXT   NOT NULL,
    requests        BIGINT NOT NULL, -- how often somebody asked for this charge,
    failures        BIGINT NOT NULL  -- and how often a fault kept the answer from him
);

CREATE TABLE refunds (
    idempotency_key TEXT   PRIMARY KEY,
    order_id        BIGINT NOT NULL,
    amount_cents    BIGINT NOT NULL
);
