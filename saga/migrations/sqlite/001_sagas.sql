-- +goose Up
CREATE TABLE kaptar_sagas (
    name        TEXT   NOT NULL,
    id          TEXT   NOT NULL,
    version     BIGINT NOT NULL, -- of the definition
    status      TEXT   NOT NULL, -- running, cancelling, compensating, completed, compensated
    step        TEXT   NOT NULL, -- the one to be done, or taken back, next; '' when the saga is over
    state       TEXT   NOT NULL, -- JSON
    attempts    BIGINT NOT NULL, -- of this step that failed
    due_at      BIGINT,          -- NULL: the saga is over
    revision    BIGINT NOT NULL, -- counts the changes of this row
    reason      TEXT   NOT NULL, -- why it is compensated
    error       TEXT   NOT NULL, -- of the last attempt, if that failed
    traceparent TEXT   NOT NULL, -- of whoever started it
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    ended_at    BIGINT,          -- NULL: the saga is not over
    PRIMARY KEY (id, name)
);
CREATE INDEX kaptar_sagas_due ON kaptar_sagas (name, version, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX kaptar_sagas_ended ON kaptar_sagas (ended_at) WHERE ended_at IS NOT NULL;
