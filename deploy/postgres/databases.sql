-- One database for each service of the shop: a database belongs to one service, and another that is led there refuses to start.
-- The service finds it by its own setting, e.g. USER_SERVICE_DATABASE_URL.
CREATE DATABASE user_service;
CREATE DATABASE order_service;
CREATE DATABASE payment_service;
CREATE DATABASE inventory_service;
CREATE DATABASE notification_service;
CREATE DATABASE analytics_service;
CREATE DATABASE bank;
