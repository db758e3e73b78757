-- +goose NO TRANSACTION
-- +goose Up
-- The checkout has moved to kaptar_sagas. Of its columns here step keeps older versions away, and
-- tells which checkouts they have begun; the others are written no more.
CREATE INDEX CONCURRENTLY orders_pending ON orders (id) WHERE status = 'pending';

-- +goose Down
DROP INDEX orders_pending;
