package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// The numbers of a key have no gap, whatever is rolled back, and follow the ids of the outbox.
func TestAddOrdered(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		const writers, each = 8, 25
		var work sync.WaitGroup
		for w := range writers {
			work.Go(func() {
				for i := range each {
					fail := i%5 == 4
					err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
						m := message(fmt.Sprint("k", i%2), w*each+i)
						if err := outbox.AddOrdered(ctx, tx, m); err != nil || !fail {
							return err
						}
						return errBoom
					})
					if err != nil && (!fail || !errors.Is(err, errBoom)) {
						t.Error(err)
					}
				}
			})
		}
		work.Wait()
		last := make(map[string]int)
		rows, err := sqldb.Select(t.Context(), db, func(row sqldb.Row) (m driver.Message, err error) {
			var headers []byte
			if err := row.Scan(&m.Key, &headers); err != nil {
				return m, err
			}
			return m, m.Headers.UnmarshalJSON(headers)
		}, `SELECT key, headers FROM kaptar_outbox ORDER BY id`)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range rows {
			last[m.Key]++
			if got, want := m.Headers.Get("ce-sequence"), fmt.Sprint(last[m.Key]); got != want {
				t.Fatalf("number of an event of %s: got %s, want %s", m.Key, got, want)
			}
		}
		if len(rows) != writers*each*4/5 {
			t.Errorf("events: got %d, want %d", len(rows), writers*each*4/5)
		}
		for _, key := range []string{strings.Repeat("x", 256), "a\x00b", "\xff"} {
			err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
				return outbox.AddOrdered(ctx, tx, message(key, 1))
			})
			if !errors.Is(err, driver.ErrInvalid) {
				t.Errorf("AddOrdered with key %.10q: got %v, want driver.ErrInvalid", key, err)
			}
		}
	})
}

func TestDeadLettersByFilter(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		at := time.UnixMilli(1_700_000_000_000)
		err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
			for i, d := range []outbox.DeadLetter{
				{Group: "g", Message: message("a", 1), Reason: "50% of It"},
				{Group: "g", Message: message("b", 2), Reason: "500 of it", State: outbox.Retrying, DueAt: at, Seq: 7},
				{Group: "h", Message: message("b", 3), Reason: "a_b", Kind: outbox.Publish},
			} {
				d.LastAt = at.Add(time.Duration(i) * time.Hour)
				if err := outbox.AddDeadLetter(ctx, tx, d); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for want, f := range map[string]*outbox.Filter{
			"a-1 b-2 b-3 ": nil,
			"a-1 ":         {Reason: "50% OF"},
			"a-1 b-2 ":     {Group: "g", Topic: "order.placed.v1"},
			"b-3 ":         {Kind: outbox.Publish, Reason: "A_b"},
			"b-2 ":         {State: outbox.Retrying, Key: "b", MessageID: "b-2"},
			"b-2 b-3 ":     {Since: at.Add(time.Hour)},
			" a-1":         {Until: at.Add(time.Hour)},
			"":             {Reason: "a%b"},
		} {
			got := ""
			for after, more := int64(0), true; more; { // pages of one
				var page outbox.Filter
				if f != nil {
					page = *f
				}
				page.After, page.Limit = after, 1
				all, err := outbox.DeadLetters(t.Context(), db, &page)
				if err != nil {
					t.Fatal(err)
				}
				if more = len(all) == 1; more {
					got, after = got+all[0].Message.ID+" ", all[0].ID
				}
			}
			if strings.TrimSpace(got) != strings.TrimSpace(want) {
				t.Errorf("dead letters of %+v: got %q, want %q", f, got, want)
			}
		}
		d, err := outbox.DeadLetters(t.Context(), db, &outbox.Filter{State: outbox.Retrying})
		if err != nil || len(d) != 1 || d[0].Seq != 7 || !d[0].DueAt.Equal(at) || d[0].Kind != outbox.Consume {
			t.Errorf("dead letter: got %+v, %v, want number 7, due at %v", d, err, at)
		}
		if one, err := outbox.GetDeadLetter(t.Context(), db, d[0].ID); err != nil || one.Message.ID != "b-2" {
			t.Errorf("GetDeadLetter = %+v, %v; want b-2", one, err)
		}
		if _, err := outbox.GetDeadLetter(t.Context(), db, 999); !errors.Is(err, outbox.ErrNoDeadLetter) {
			t.Errorf("GetDeadLetter of none: got %v, want ErrNoDeadLetter", err)
		}
	})
}
