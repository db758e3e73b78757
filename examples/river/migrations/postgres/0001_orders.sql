-- +goose Up
CREATE TABLE orders (
    id    BIGINT PRIMARY KEY,
    cents BIGINT NOT NULL
);
