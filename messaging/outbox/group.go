package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"time"

	"github.com/kaptar/kaptar/sqldb"
)

// A Group is a consumer group that was reset, and so handles again what comes from then on.
type Group struct {
	Name, Topic string
	Generation  int64     // number of resets
	To          time.Time // where it begins again; zero is the beginning
	Pending     bool      // the position at the broker has not been moved yet
}

// Inbox returns the name under which the group's marks are stored.
func (g *Group) Inbox() string {
	if g.Generation == 0 {
		return g.Name
	}
	return g.Name + "#" + strconv.FormatInt(g.Generation, 10)
}

// Reset starts the next generation of g, as part of tx. It uses Name, Topic and To. The group's
// members learn of it through Groups.
func (g *Group) Reset(ctx context.Context, tx *sql.Tx) error {
	g.Pending = true
	err := tx.QueryRowContext(ctx, `INSERT INTO kaptar_groups (grp, topic, generation, reset_to, state) VALUES ($1, $2, 1, $3, 'pending')
		ON CONFLICT (grp, topic) DO UPDATE SET generation = kaptar_groups.generation + 1, reset_to = excluded.reset_to, state = 'pending'
		RETURNING generation`, g.Name, g.Topic, millis(g.To)).Scan(&g.Generation)
	if err != nil {
		return fmt.Errorf("outbox: reset of group %q: %w", g.Name, err)
	}
	return nil
}

// Groups returns all groups that were ever reset.
func Groups(ctx context.Context, q sqldb.Querier) ([]Group, error) {
	all, err := sqldb.Select(ctx, q, func(row sqldb.Row) (g Group, err error) {
		var to sql.NullInt64
		var state string
		err = row.Scan(&g.Name, &g.Topic, &g.Generation, &to, &state)
		if to.Valid {
			g.To = time.UnixMilli(to.Int64)
		}
		g.Pending = state == "pending"
		return g, err
	}, `SELECT grp, topic, generation, reset_to, state FROM kaptar_groups ORDER BY grp, topic`)
	if err != nil {
		return nil, fmt.Errorf("outbox: groups: %w", err)
	}
	return all, nil
}

// Done records that the position at the broker was moved for g's generation, unless there is a
// later one.
func (g *Group) Done(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `UPDATE kaptar_groups SET state = 'done' WHERE grp = $1 AND topic = $2 AND generation = $3`, g.Name, g.Topic, g.Generation)
	if err != nil {
		return fmt.Errorf("outbox: reset of group %q: %w", g.Name, err)
	}
	return nil
}

// earlier selects the dead letters of earlier generations of group $1 and topic $2. $3 is its
// current name.
const earlier = ` FROM kaptar_dead_letters WHERE topic = $2 AND kind = 'consume' AND grp <> $3
	AND (grp = $1 OR substr(grp, 1, length(CAST($1 AS TEXT)) + 1) = CAST($1 AS TEXT) || '#')`

// CarryOver takes over what earlier generations of g have set aside, as part of tx. It may be
// called again. An event without a number stays set aside and is marked as handled in this
// generation, unless it has a mark there. One of an ordered topic becomes a dead letter under the
// group's old name, since the order of its key starts again; the group gets it again if the broker
// still has it.
func (g *Group) CarryOver(ctx context.Context, tx *sql.Tx) error {
	for _, statement := range []string{
		`DELETE FROM kaptar_dead_letters WHERE id IN (SELECT id` + earlier + ` AND state = '` + dropped + `')`,
		`UPDATE kaptar_dead_letters SET state = 'dead', seq = NULL, due_at = NULL, rev = rev + 1,
			reason = 'set aside before the group was reset: ' || reason WHERE id IN (SELECT id` + earlier + ` AND seq IS NOT NULL)`,
		`UPDATE kaptar_dead_letters SET grp = $3, rev = rev + 1 WHERE id IN (SELECT id` + earlier + ` AND seq IS NULL)
			AND reason NOT LIKE 'set aside before the group was reset:%' AND NOT EXISTS (SELECT 1 FROM kaptar_inbox i
			WHERE i.grp = $3 AND i.msgid = kaptar_dead_letters.msgid AND i.source = kaptar_dead_letters.source)`,
	} {
		if _, err := tx.ExecContext(ctx, statement, g.Name, g.Topic, g.Inbox()); err != nil {
			return fmt.Errorf("outbox: reset of group %q: %w", g.Name, err)
		}
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO kaptar_inbox (grp, msgid, source, handled_at)
		SELECT grp, msgid, source, CAST($3 AS BIGINT) FROM kaptar_dead_letters WHERE grp = $1 AND topic = $2 AND kind = 'consume' AND seq IS NULL
		ON CONFLICT DO NOTHING`, g.Inbox(), g.Topic, time.Now().UnixMilli())
	if err != nil {
		return fmt.Errorf("outbox: reset of group %q: %w", g.Name, err)
	}
	return nil
}
