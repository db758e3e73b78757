-- +goose Up
CREATE TABLE users (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    username      TEXT   NOT NULL UNIQUE CHECK (username = lower(username)),
    email         TEXT   NOT NULL UNIQUE,
    password_hash TEXT   NOT NULL,
    created_at    BIGINT NOT NULL
);

-- The one row is the key that tokens are signed with.
CREATE TABLE signing_key (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    seed TEXT NOT NULL
);
