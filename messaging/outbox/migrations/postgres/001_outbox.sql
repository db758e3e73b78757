-- +goose Up
CREATE TABLE kaptar_outbox (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    msgid      TEXT   NOT NULL,
    topic      TEXT   NOT NULL,
    key        TEXT   NOT NULL,
    headers    JSON   NOT NULL,
    payload    BYTEA  NOT NULL,
    created_at BIGINT NOT NULL
) WITH (
    -- Every row is deleted soon: the share of dead rows says nothing, their number does.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);

CREATE TABLE kaptar_inbox (
    grp        TEXT   NOT NULL,
    msgid      TEXT   NOT NULL,
    handled_at BIGINT NOT NULL,
    PRIMARY KEY (grp, msgid)
);
CREATE INDEX kaptar_inbox_handled_at ON kaptar_inbox (handled_at);

CREATE TABLE kaptar_dead_letters (
    id       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    grp      TEXT   NOT NULL,
    msgid    TEXT   NOT NULL,
    topic    TEXT   NOT NULL,
    key      TEXT   NOT NULL,
    headers  JSON   NOT NULL,
    payload  BYTEA  NOT NULL,
    reason   TEXT   NOT NULL,
    attempts BIGINT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at  BIGINT NOT NULL,
    UNIQUE (grp, msgid)
);
