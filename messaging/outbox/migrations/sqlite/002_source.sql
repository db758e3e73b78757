-- kaptar:contract 2 the key of the inbox has one column more; no version without it was released
-- +goose Up
ALTER TABLE kaptar_outbox ADD COLUMN raw BOOLEAN NOT NULL DEFAULT FALSE;

-- An event is known by its source and its id. Marks from before that have the source '*', which
-- stands for all.
CREATE TABLE kaptar_inbox_new (
    grp        TEXT   NOT NULL,
    msgid      TEXT   NOT NULL,
    source     TEXT   NOT NULL,
    handled_at BIGINT NOT NULL,
    PRIMARY KEY (grp, msgid, source)
) WITHOUT ROWID;
INSERT INTO kaptar_inbox_new SELECT grp, msgid, '*', handled_at FROM kaptar_inbox;
DROP TABLE kaptar_inbox;
ALTER TABLE kaptar_inbox_new RENAME TO kaptar_inbox;
CREATE INDEX kaptar_inbox_handled_at ON kaptar_inbox (handled_at);

CREATE TABLE kaptar_dead_letters_new (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    grp      TEXT    NOT NULL,
    msgid    TEXT    NOT NULL,
    source   TEXT    NOT NULL,
    topic    TEXT    NOT NULL,
    key      TEXT    NOT NULL,
    headers  TEXT    NOT NULL,
    payload  BLOB    NOT NULL,
    raw      BOOLEAN NOT NULL,
    reason   TEXT    NOT NULL,
    attempts INTEGER NOT NULL,
    first_at BIGINT  NOT NULL,
    last_at  BIGINT  NOT NULL,
    UNIQUE (grp, msgid, source)
);
INSERT INTO kaptar_dead_letters_new
    SELECT id, grp, msgid, coalesce(json_extract(headers, '$."ce-source"'), ''), topic, key, headers, payload, FALSE,
        reason, attempts, first_at, last_at
    FROM kaptar_dead_letters;
DROP TABLE kaptar_dead_letters;
ALTER TABLE kaptar_dead_letters_new RENAME TO kaptar_dead_letters;
