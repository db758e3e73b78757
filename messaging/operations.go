package messaging

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/cli"
	"github.com/kaptar/kaptar/internal/operate"
	"github.com/kaptar/kaptar/messaging/outbox"
)

// An operation is what an operator does with one service: a command, and an answer of the API.
type operation struct {
	operate.Operation[*operator]

	route string
	in    any // what the API reads a body into; nil: the parameters are those of Flags, in the query
	by    *by // who changes something; nil: nothing is changed
}

func listLetters() *operation {
	var named filter
	var f outbox.Filter
	p := page{name: "after"}
	return &operation{route: "GET /deadletters", Operation: operate.Operation[*operator]{
		Use: "list [SERVICE…]", Short: "List what the services have set aside",
		Head:  "SERVICE ID STATE TOPIC KEY GROUP ATTEMPTS FAILED REASON",
		Args:  p.args,
		Flags: func(set *pflag.FlagSet) { named.flags(set); p.flags(set) },
		Check: func() (err error) {
			f, err = named.parse(time.Now())
			return cmp.Or(err, p.check())
		},
		Do: func(ctx context.Context, o *operator) (any, error) {
			f.Limit, f.After = p.limit, p.from
			return o.list(ctx, f)
		},
	}}
}

func showLetter() *operation {
	var id int64
	var l letter
	return &operation{route: "GET /deadletters/{id}", Operation: operate.Operation[*operator]{
		Use: "show SERVICE ID", Short: "Show one, with its headers and data",
		Args: func(args []string) (err error) { id, err = number(args[0]); return err },
		Do: func(ctx context.Context, o *operator) (_ any, err error) {
			l, err = o.show(ctx, id)
			return l, err
		},
		Tell: func(_ context.Context, call *kaptar.Call, _ *operator) error { return l.print(call.Stdout) },
	}}
}

func editLetter() *operation {
	var id int64
	var in struct {
		Data    json.RawMessage   `json:"data"`
		Base64  []byte            `json:"data_base64"`
		Headers map[string]string `json:"headers"`
		by
	}
	return in.change(operation{route: "PATCH /deadletters/{id}", in: &in, Operation: operate.Operation[*operator]{
		Use: "edit SERVICE ID", Short: "Change its data or headers; replay it afterwards",
		Args: func(args []string) (err error) { id, err = number(args[0]); return err },
		Flags: func(f *pflag.FlagSet) {
			f.Func("data", "`FILE` with the new data, - is what is typed", func(file string) (err error) {
				in.Base64, err = read(file)
				return err
			})
			f.Func("header", "`NAME=VALUE` of a header; may be repeated", func(text string) error {
				name, value, ok := strings.Cut(text, "=")
				if !ok || name == "" {
					return cli.Usagef("expected name=value, or name= to take it away")
				}
				if in.Headers == nil {
					in.Headers = map[string]string{}
				}
				in.Headers[name] = value
				return nil
			})
		},
		Check: func() error {
			if in.Data != nil && in.Base64 != nil {
				return cli.Usagef("data and data_base64: expected one of them")
			}
			if in.Data != nil {
				in.Base64 = in.Data
			}
			return nil
		},
		Do: func(ctx context.Context, o *operator) (any, error) {
			if err := o.edit(ctx, id, in.Base64, in.Headers, in.by); err != nil {
				return nil, err
			}
			return o.show(ctx, id)
		},
		Tell: func(_ context.Context, call *kaptar.Call, o *operator) error {
			_, err := fmt.Fprintf(call.Stdout, "Edited %d. Next: %s deadletters replay %s %[1]d --why …\n", id, cli.Program(), o.bus.app.Name())
			return err
		},
	}})
}

func replayLetters() *operation {
	s := &selection{Rate: replayRate}
	var begin time.Time // of those that come next
	return s.change(operation{route: "POST /deadletters/replay", in: s, Operation: operate.Operation[*operator]{
		Use: "replay SERVICE [ID…]", Short: "Have them tried again by the service's processes, and wait for what comes of it",
		Args: s.args,
		Flags: func(f *pflag.FlagSet) {
			s.flags(f)
			f.IntVar(&s.Rate, "rate", replayRate, fmt.Sprintf("at most so many in a second, up to %d", replayRate))
		},
		Check: func() error {
			if s.Rate < 1 || s.Rate > replayRate {
				return cli.Usagef("rate %d: expected 1 to %d a second", s.Rate, replayRate)
			}
			return s.check()
		},
		Do: func(ctx context.Context, o *operator) (any, error) {
			begin = time.Now()
			n, err := s.each(ctx, o, func(ids []int64) (int, error) {
				n, err := o.replay(ctx, ids, s.parsed.State, s.Rate, begin, s.by)
				begin = begin.Add(time.Duration(n) * time.Second / time.Duration(s.Rate))
				return n, err
			})
			return map[string]int{"replayed": n}, err
		},
		Tell: func(ctx context.Context, call *kaptar.Call, o *operator) error {
			return o.watch(ctx, call, s.IDs, begin)
		},
	}})
}

func dropLetters() *operation {
	s, n := new(selection), 0
	return s.change(operation{route: "POST /deadletters/drop", in: s, Operation: operate.Operation[*operator]{
		Use: "drop SERVICE [ID…]", Short: "Give them up; of an ordered topic the next event of the key is tried then",
		Args: s.args, Flags: s.flags, Check: s.check,
		Do: func(ctx context.Context, o *operator) (_ any, err error) {
			n, err = s.each(ctx, o, func(ids []int64) (int, error) { return o.drop(ctx, ids, s.parsed.State, s.by) })
			return map[string]int{"dropped": n}, err
		},
		Tell: func(_ context.Context, call *kaptar.Call, _ *operator) error {
			_, err := fmt.Fprintf(call.Stdout, "Dropped %d.\n", n)
			return err
		},
	}})
}

func listAudit() *operation {
	p := page{name: "before"}
	return &operation{route: "GET /audit", Operation: operate.Operation[*operator]{
		Use: "audit [SERVICE…]", Short: "List what was replayed, edited, dropped, reset and resent, by whom and why",
		Head: "AT SERVICE WHO ACTION TOPIC KEY EVENT WHY",
		Args: p.args, Flags: p.flags, Check: p.check,
		Do: func(ctx context.Context, o *operator) (any, error) { return o.audit(ctx, p.from, p.limit) },
	}}
}

func listFlows() *operation {
	return &operation{route: "GET /events", Operation: operate.Operation[*operator]{
		Use: "list [SERVICE…]", Short: "List topics and groups, with what waits and what is set aside",
		Head: "SERVICE TOPIC ROLE GROUP WAITING OLDEST RETRYING DEAD PARKED",
		Do:   func(ctx context.Context, o *operator) (any, error) { return o.flows(ctx) },
	}}
}

func resetGroup() *operation {
	in := new(reset)
	var g outbox.Group
	return in.change(operation{route: "POST /events/reset", in: in, Operation: operate.Operation[*operator]{
		Use: "reset SERVICE TOPIC", Short: "Have a consumer group begin again",
		Args: func(args []string) error { in.Topic = args[0]; return nil },
		Flags: func(f *pflag.FlagSet) {
			f.StringVar(&in.To, "to", "", "`WHEN` it begins: beginning, a time as in 2026-11-29T10:00:00Z, or an age as in -1h (required)")
			f.StringVar(&in.Group, "group", "", "the group, if the service has several for the topic")
		},
		Do: func(ctx context.Context, o *operator) (_ any, err error) {
			g, err = o.reset(ctx, in)
			return map[string]any{"topic": g.Topic, "group": g.Name, "generation": g.Generation}, err
		},
		Tell: func(ctx context.Context, call *kaptar.Call, o *operator) error { return o.awaitReset(ctx, call, &g) },
	}})
}

func resendEvents() *operation {
	var in struct {
		Since string `json:"since"`
		Topic string `json:"topic"`
		by
	}
	n := 0
	return in.change(operation{route: "POST /events/resend", in: &in, Operation: operate.Operation[*operator]{
		Use: "resend SERVICE", Short: "Send again what a broker has lost, as far as outbox.keep has it",
		Flags: func(f *pflag.FlagSet) {
			f.StringVar(&in.Since, "since", "", "`WHEN` the first of them was sent: an age as in 10m, or a time as in 2026-11-29T10:00:00Z (required)")
			f.StringVar(&in.Topic, "topic", "", "only this topic")
		},
		Do: func(ctx context.Context, o *operator) (_ any, err error) {
			n, err = o.resend(ctx, in.Since, in.Topic, in.by)
			return map[string]int{"resent": n}, err
		},
		Tell: func(_ context.Context, call *kaptar.Call, _ *operator) error {
			_, err := fmt.Fprintf(call.Stdout, "%d events are in the outbox again.\n", n)
			return err
		},
	}})
}
