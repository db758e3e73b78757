-- +goose Up
-- v1 leaves it out, and reads rows that have it.
ALTER TABLE users ADD COLUMN display_name TEXT;
