-- +goose Up
CREATE TABLE kaptar_schedules (
    name   TEXT   NOT NULL PRIMARY KEY,
    spec   TEXT   NOT NULL,
    due_at BIGINT NOT NULL, -- the time that was last dealt with
    ran_at BIGINT,          -- when that run ended
    error  TEXT   NOT NULL DEFAULT ''
);
