-- +goose Up
CREATE TABLE totals (
    name  TEXT   PRIMARY KEY,
    value BIGINT NOT NULL
);

CREATE TABLE sales_by_sku (
    sku         TEXT   PRIMARY KEY,
    quantity    BIGINT NOT NULL,
    total_cents BIGINT NOT NULL
);
