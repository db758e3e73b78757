-- +goose Up
CREATE TABLE stock (
    sku         TEXT   PRIMARY KEY,
    available   BIGINT NOT NULL CHECK (available >= 0),
    reserved    BIGINT NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    price_cents BIGINT NOT NULL CHECK (price_cents > 0),
    stocked_at  BIGINT -- when it was first put in stock; NULL: never
);

CREATE TABLE reservations (
    order_id   BIGINT PRIMARY KEY,
    state      TEXT   NOT NULL CHECK (state IN ('reserved', 'released', 'shipped')),
    reason     TEXT   NOT NULL DEFAULT '', -- why nothing could be reserved
    changed_at BIGINT NOT NULL
);

CREATE TABLE reservation_items (
    order_id BIGINT NOT NULL REFERENCES reservations (order_id),
    sku      TEXT   NOT NULL REFERENCES stock (sku),
    quantity BIGINT NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (order_id, sku)
);

INSERT INTO stock (sku, available, price_cents) VALUES ('tea', 0, 900), ('coffee', 0, 1250), ('honey', 0, 700);

-- +goose Down
DROP TABLE reservation_items;
DROP TABLE reservations;
DROP TABLE stock;
