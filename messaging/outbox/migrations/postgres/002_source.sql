-- kaptar:contract 2 the key of the inbox has one column more; no version without it was released
-- +goose Up
ALTER TABLE kaptar_outbox ADD COLUMN raw BOOLEAN NOT NULL DEFAULT FALSE;

-- An event is known by its source and its id. Marks from before that have the source '*', which
-- stands for all.
ALTER TABLE kaptar_inbox ADD COLUMN source TEXT NOT NULL DEFAULT '*';
ALTER TABLE kaptar_inbox ALTER COLUMN source DROP DEFAULT;
ALTER TABLE kaptar_inbox DROP CONSTRAINT kaptar_inbox_pkey;
ALTER TABLE kaptar_inbox ADD PRIMARY KEY (grp, msgid, source);

ALTER TABLE kaptar_dead_letters ADD COLUMN source TEXT, ADD COLUMN raw BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE kaptar_dead_letters SET source = coalesce(headers ->> 'ce-source', '');
ALTER TABLE kaptar_dead_letters ALTER COLUMN source SET NOT NULL, ALTER COLUMN raw DROP DEFAULT;
ALTER TABLE kaptar_dead_letters DROP CONSTRAINT kaptar_dead_letters_grp_msgid_key;
ALTER TABLE kaptar_dead_letters ADD UNIQUE (grp, msgid, source);
