// Package sqldb opens SQL databases by URL, migrates them and runs transactions that survive
// contention.
//
// Two dialects are known, [SQLite] and [Postgres], each linked by an import of drivers/sqlite or
// drivers/postgres. Open returns a plain [database/sql.DB]: everything that takes one keeps
// working, and the functions of this package find the dialect in it.
//
// # Durability
//
// A committed transaction is on disk: SQLite runs in WAL mode with synchronous=FULL, and a
// PostgreSQL server that says synchronous_commit=off or fsync=off is refused.
//
// # Writing
//
// Write through [InTx]. On SQLite the writers of one *sql.DB queue in the process, and those that
// wait share one commit: each has a savepoint of its own, so one that fails takes nothing from the
// others, and all return after the common commit. Writes around InTx (db.Exec, db.Begin) are
// allowed; they contend for SQLite's file lock and wait up to five seconds for it.
//
// # Portable SQL
//
// Write parameters as $1…$n in order of first use and times as BIGINT unix milliseconds; both
// dialects take INSERT … ON CONFLICT and RETURNING.
package sqldb
