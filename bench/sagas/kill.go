package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/kaptar/kaptar/saga"
)

const (
	killSagas = 500
	// What the kill tests tell their children.
	killURL    = "KAPTAR_SAGAS_URL"
	killEdge   = "KAPTAR_SAGAS_EDGE"   // the edge at which it kills itself
	killPrefix = "KAPTAR_SAGAS_PREFIX" // of the ids of its checkouts
)

// runChild starts the checkouts that are not there yet and waits until all are over.
func runChild(ctx context.Context, name string, sagas, at int) error {
	url := os.Getenv(killURL)
	db, err := sql.Open("pgx", url)
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(20)
	die, _ := strconv.ParseInt(os.Getenv(killEdge), 10, 64) // "" is never
	sys, err := opens[name](ctx, url, &services{db: db, end: true, die: die})
	if err != nil {
		return err
	}
	run := sys
	if o, ours := sys.(*ours); ours {
		run = starter{o}
	}
	if err := all(ctx, run, os.Getenv(killPrefix), sagas, at); err != nil {
		return err
	}
	for {
		var n int
		if err := db.QueryRowContext(ctx, `SELECT count(*) FROM endings WHERE id LIKE $1`, os.Getenv(killPrefix)+"%").Scan(&n); err != nil {
			return err
		}
		if n == sagas {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A starter starts checkouts and does not wait.
type starter struct{ *ours }

func (s starter) run(ctx context.Context, id string) error {
	if err := s.start(ctx, id); !errors.Is(err, saga.ErrExists) {
		return err
	}
	return nil
}

// killed runs checkouts in a process that is killed again and again, and compares what they have done.
// Each tenth is refused its money.
func killed(ctx context.Context, base, name string, kills int) error {
	url, err := database(ctx, base, "killed_"+name)
	if err != nil {
		return err
	}
	db, err := sql.Open("pgx", url)
	if err != nil {
		return err
	}
	defer db.Close()
	done := 0
	for n := 0; ; n++ {
		cmd := exec.CommandContext(ctx, os.Args[0], "-child", name, "-sagas", fmt.Sprint(killSagas))
		cmd.Env, cmd.Stderr = append(os.Environ(), killURL+"="+url), os.Stderr
		if err := cmd.Start(); err != nil {
			return err
		}
		if n < kills {
			timer := time.AfterFunc(100*time.Millisecond+rand.N(700*time.Millisecond), func() { _ = cmd.Process.Kill() }) //nolint:gosec // any time will do
			err = cmd.Wait()
			timer.Stop()
			if err != nil {
				done++
			}
			continue
		}
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("%s: after %d kills: %w", name, kills, err)
		}
		break
	}
	var effects, again, endings, twice, wrong int
	err = db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM effects), (SELECT count(*) FROM effects WHERE calls > 1),
		(SELECT count(*) FROM endings), (SELECT count(*) FROM endings WHERE times > 1),
		(SELECT count(*) FROM endings WHERE (status = 'compensated') <> (id LIKE '%0'))`).Scan(&effects, &again, &endings, &twice, &wrong)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d kills, %d checkouts over, %d effects elsewhere of which %d were called again, %d ends written twice, %d with the wrong end\n",
		name, done, endings, effects, again, twice, wrong)
	if endings != killSagas || twice+wrong > 0 || effects != 3*killSagas {
		return fmt.Errorf("%s: want %d checkouts over, as many effects as steps, and no end twice", name, killSagas)
	}
	return nil
}

// edges kills the process of one checkout at each edge: before and after each call's effect, and of the
// end's.
func edges(ctx context.Context, base, name string) error {
	url, err := database(ctx, base, "edges_"+name)
	if err != nil {
		return err
	}
	db, err := sql.Open("pgx", url)
	if err != nil {
		return err
	}
	defer db.Close()
	kills := 0
	for _, kind := range []string{"works", "refused"} {
		for edge := 1; ; edge++ {
			prefix := fmt.Sprint(kind, edge, "-")
			child := func(edge int) error {
				cmd := exec.CommandContext(ctx, os.Args[0], "-child", name, "-sagas", "1")
				cmd.Env = append(os.Environ(), killURL+"="+url, killEdge+"="+strconv.Itoa(edge), killPrefix+"="+prefix)
				cmd.Stderr = os.Stderr
				return cmd.Run()
			}
			if child(edge) == nil {
				break // it ended before it came to so many edges
			}
			kills++
			if err := child(0); err != nil {
				return fmt.Errorf("%s: killed at edge %d and started again: %w", name, edge, err)
			}
		}
	}
	var endings, wrong int
	err = db.QueryRowContext(ctx, `SELECT count(*), count(*) FILTER (WHERE times > 1 OR (status = 'compensated') <> (id LIKE 'refused%')) FROM endings`).Scan(&endings, &wrong)
	if err != nil {
		return err
	}
	fmt.Printf("%s: killed at %d edges, %d checkouts over, %d wrong or ended twice\n", name, kills, endings, wrong)
	if wrong > 0 || kills < 12 {
		return fmt.Errorf("%s: want 12 edges at least, and all ends right", name)
	}
	return nil
}
