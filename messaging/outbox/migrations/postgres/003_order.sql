-- kaptar:contract 2 the index is on a table with few rows, and the new columns have defaults
-- +goose Up

-- The last number of each key of an ordered topic that this service publishes.
CREATE TABLE kaptar_sequences (
    topic TEXT   NOT NULL,
    key   TEXT   NOT NULL,
    seq   BIGINT NOT NULL,
    PRIMARY KEY (topic, key)
);

-- Events that the broker has, kept for a while so that they can be sent again.
CREATE TABLE kaptar_outbox_sent (
    id         BIGINT  NOT NULL PRIMARY KEY,
    msgid      TEXT    NOT NULL,
    topic      TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    headers    JSON    NOT NULL,
    payload    BYTEA   NOT NULL,
    raw        BOOLEAN NOT NULL,
    created_at BIGINT  NOT NULL,
    sent_at    BIGINT  NOT NULL
);
CREATE INDEX kaptar_outbox_sent_sent_at ON kaptar_outbox_sent (sent_at);

-- How far a group has come with a key of an ordered topic: first is the lowest number that it can
-- have handled, handled the last one that it has, tail the highest one handled or set aside, and
-- msgid that one's id.
CREATE TABLE kaptar_inbox_keys (
    grp     TEXT   NOT NULL,
    topic   TEXT   NOT NULL,
    source  TEXT   NOT NULL,
    key     TEXT   NOT NULL,
    first   BIGINT NOT NULL,
    handled BIGINT NOT NULL,
    tail    BIGINT NOT NULL,
    msgid   TEXT   NOT NULL,
    PRIMARY KEY (grp, topic, source, key)
) WITH (fillfactor = 70); -- each event updates a row in place

ALTER TABLE kaptar_dead_letters
    ADD COLUMN kind    TEXT   NOT NULL DEFAULT 'consume',
    ADD COLUMN state   TEXT   NOT NULL DEFAULT 'dead',
    ADD COLUMN seq     BIGINT,
    ADD COLUMN due_at  BIGINT,
    ADD COLUMN retries BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN rev     BIGINT NOT NULL DEFAULT 0;
CREATE INDEX kaptar_dead_letters_due ON kaptar_dead_letters (state, grp, topic, due_at);
CREATE INDEX kaptar_dead_letters_seq ON kaptar_dead_letters (grp, topic, source, key, seq) WHERE seq IS NOT NULL;

CREATE TABLE kaptar_dead_letter_audit (
    id     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     BIGINT NOT NULL,
    who    TEXT   NOT NULL,
    why    TEXT   NOT NULL,
    action TEXT   NOT NULL,
    grp    TEXT   NOT NULL,
    msgid  TEXT   NOT NULL,
    source TEXT   NOT NULL,
    topic  TEXT   NOT NULL,
    key    TEXT   NOT NULL,
    before TEXT   NOT NULL
);

CREATE TABLE kaptar_groups (
    grp        TEXT   NOT NULL,
    topic      TEXT   NOT NULL,
    generation BIGINT NOT NULL,
    reset_to   BIGINT,
    state      TEXT   NOT NULL,
    PRIMARY KEY (grp, topic)
);
