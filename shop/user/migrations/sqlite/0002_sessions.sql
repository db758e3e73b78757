-- kaptar:contract 2 the table signing_key is gone; no version that used it was released
-- +goose Up
-- A login that can be refreshed. Its refresh token is known by its SHA-256; previous is the one that
-- was good before.
CREATE TABLE sessions (
    id         TEXT    PRIMARY KEY,
    user_id    INTEGER NOT NULL REFERENCES users (id),
    client     TEXT    NOT NULL,
    token      TEXT    NOT NULL,
    previous   TEXT    NOT NULL,
    rotated_at BIGINT  NOT NULL,
    expires_at BIGINT  NOT NULL
);
CREATE INDEX sessions_user ON sessions (user_id, rotated_at);
CREATE INDEX sessions_expiry ON sessions (expires_at);

-- The keys that tokens are signed with, each from signs_from until the next one does.
CREATE TABLE signing_keys (
    number     INTEGER PRIMARY KEY,
    seed       TEXT    NOT NULL,
    signs_from BIGINT  NOT NULL
);
INSERT INTO signing_keys (number, seed, signs_from) SELECT 1, seed, 0 FROM signing_key;
DROP TABLE signing_key;
