-- +goose Up
CREATE TABLE mails (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id BIGINT NOT NULL,
    subject TEXT   NOT NULL,
    body    TEXT   NOT NULL,
    sent_at BIGINT NOT NULL
);

CREATE INDEX mails_of_user ON mails (user_id, id);
