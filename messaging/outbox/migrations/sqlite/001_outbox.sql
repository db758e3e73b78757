-- +goose Up
CREATE TABLE kaptar_outbox (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    msgid      TEXT    NOT NULL,
    topic      TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    headers    TEXT    NOT NULL,
    payload    BLOB    NOT NULL,
    created_at BIGINT  NOT NULL
);

CREATE TABLE kaptar_inbox (
    grp        TEXT   NOT NULL,
    msgid      TEXT   NOT NULL,
    handled_at BIGINT NOT NULL,
    PRIMARY KEY (grp, msgid)
) WITHOUT ROWID;
CREATE INDEX kaptar_inbox_handled_at ON kaptar_inbox (handled_at);

CREATE TABLE kaptar_dead_letters (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    grp      TEXT    NOT NULL,
    msgid    TEXT    NOT NULL,
    topic    TEXT    NOT NULL,
    key      TEXT    NOT NULL,
    headers  TEXT    NOT NULL,
    payload  BLOB    NOT NULL,
    reason   TEXT    NOT NULL,
    attempts INTEGER NOT NULL,
    first_at BIGINT  NOT NULL,
    last_at  BIGINT  NOT NULL,
    UNIQUE (grp, msgid)
);
