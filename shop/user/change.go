package user

import (
	"context"
	"database/sql"
	"strconv"
	"time"

	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/shop/events"
	"github.com/kaptar/kaptar/sqldb"
)

// cacheTTL bounds how long several instances that have no Redis in common can answer with
// what a user was before a change at one of them: only one hears of the event.
const cacheTTL = time.Minute

// get returns the user with that id, or errNotFound.
func (s *service) get(ctx context.Context, id int64) (user, error) {
	if err := s.set.spoil(ctx); err != nil {
		return user{}, err
	}
	e, err := s.byID.Get(ctx, cacheKey(id), func(ctx context.Context) (entry, error) {
		u, err := s.store.byID(ctx, id)
		return toEntry(u), err
	})
	if err != nil || e.complete() {
		return e.user, err
	}
	_ = s.byID.Delete(ctx, cacheKey(id)) // an older version has put it there
	return s.store.byID(ctx, id)
}

// change takes a canonical address. The error may be errNotFound or a *takenError.
func (s *service) change(ctx context.Context, u user) (_ user, err error) {
	err = sqldb.InTx(ctx, s.store.db, func(ctx context.Context, tx *sql.Tx) error {
		var err error
		if u, err = s.store.change(ctx, tx, u); err != nil {
			return err
		}
		return s.changed.Publish(ctx, tx, cacheKey(u.ID), events.UserV1{UserID: u.ID, Username: u.Username, Email: u.Email})
	})
	if _, taken := sqldb.Constraint(err); taken {
		return user{}, new(takenError)
	}
	if err != nil {
		return user{}, err
	}
	_ = s.byID.Delete(ctx, cacheKey(u.ID)) // what it cannot do now, onChanged does until it has succeeded
	return u, nil
}

// onChanged deletes the user from the cache once more, as change may have been
// cut off after its transaction, or Redis away.
func (s *service) onChanged(ctx context.Context, _ *sql.Tx, e messaging.Event[events.UserV1]) error {
	if time.Since(e.Time) > 2*cacheTTL {
		return nil // whatever was stored before has ended
	}
	return s.byID.Delete(ctx, cacheKey(e.Data.UserID))
}

func cacheKey(id int64) string { return strconv.FormatInt(id, 10) }
