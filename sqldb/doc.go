// Package sqldb opens SQL databases by URL, migrates them and runs transactions that survive
// contention.
//
// There are two dialects, [SQLite] and [Postgres], which importing drivers/sqlite or
// drivers/postgres links. Open returns a plain [database/sql.DB], which works with everything that
// takes one. The functions of this package know its dialect.
//
// # Durability
//
// A committed transaction is on disk: SQLite runs in WAL mode with synchronous=FULL, and Open
// refuses a PostgreSQL server with synchronous_commit=off or fsync=off.
//
// # Writing
//
// Write through [InTx]. On SQLite the writers of one *sql.DB queue in the process, and those that
// wait share one commit. Each has its own savepoint, so that one that fails does not affect the
// others, and all return after the shared commit. Writes that bypass InTx (db.Exec, db.Begin) are
// allowed; they wait up to five seconds for SQLite's file lock.
//
// # Portable SQL
//
// Write parameters as $1…$n in order of first use and times as BIGINT unix milliseconds; both
// dialects take INSERT … ON CONFLICT and RETURNING.
package sqldb
