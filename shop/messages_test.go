package main

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/shop/events"
)

// confirmation is an event of a confirmed order that no customer has placed, of one
// piece of sku for one cent.
func confirmation(id, key string, order, user int64, sku string) event {
	return event{topic: events.OrderConfirmed.Name, id: id, key: key, body: fmt.Sprintf(
		`{"order_id":%d,"user_id":%d,"items":[{"sku":%q,"quantity":1,"price_cents":1}],"total_cents":1}`, order, user, sku)}
}

// letter is an event that asks for a mail.
func letter(id string, user int64, subject string) event {
	return event{topic: events.EmailSend.Name, id: id, key: strconv.FormatInt(user, 10),
		body: fmt.Sprintf(`{"user_id":%d,"subject":%q,"body":"…"}`, user, subject)}
}

// count says how often what is in list.
func count(list []string, what string) (n int) {
	for _, s := range list {
		if s == what {
			n++
		}
	}
	return n
}

// arrived waits until user has got a mail with subject.
func (s *site) arrived(t *testing.T, user int64, subject string) (mails []string) {
	t.Helper()
	eventually(t, func() (problem string) {
		if mails, problem = mailsOf(s.as(t), user); problem == "" && !slices.Contains(mails, subject) {
			problem = fmt.Sprintf("user %d has no mail %q among %q", user, subject, mails)
		}
		return problem
	})
	return mails
}

// sold waits until the sales count n pieces of sku.
func (s *site) sold(t *testing.T, sku string, n int64) {
	t.Helper()
	eventually(t, func() string {
		var got sales
		problem := s.as(t).read("/v1/sales", &got)
		if now := got.BySKU[sku].Quantity; problem == "" && now != n {
			problem = fmt.Sprintf("the sales count %d of %s, want %d", now, sku, n)
		}
		return problem
	})
}

// duplicates publishes events twice, as a program without kaptar that did not hear
// the broker's answer: they count once. An event with the same key comes after
// them, and so is handled after them.
func duplicates(t *testing.T, s *site) {
	user := s.as(t).signUp("twice")
	log, queue := s.wire(t, s, events.OrderConfirmed.Name), s.wire(t, s, events.EmailSend.Name)
	for range 2 {
		log.publish(t, confirmation("twice-1", "twice", 910_001, user, "twice"))
		queue.publish(t, letter("twice-3", user, "twice"))
	}
	log.publish(t, confirmation("twice-2", "twice", 910_002, user, "twice"))
	queue.publish(t, letter("twice-4", user, "after"))
	s.stray(1)
	s.stray(1)

	s.sold(t, "twice", 2)
	s.arrived(t, user, "after")
	mails := s.arrived(t, user, "Order 910002 is confirmed")
	for _, subject := range []string{"twice", "Order 910001 is confirmed"} {
		if n := count(mails, subject); n != 1 {
			t.Errorf("published twice, mailed %d times: %q", n, subject)
		}
	}
}

// badMessages publishes what nobody can handle: it becomes a dead letter of each
// consumer, and what comes after it is handled.
func badMessages(t *testing.T, s *site) {
	user := s.as(t).signUp("bad")
	key := strconv.FormatInt(user, 10)
	good := map[string]event{
		events.OrderConfirmed.Name: confirmation("bad-good-1", key, 920_001, user, "bad"),
		events.EmailSend.Name:      letter("bad-good-2", user, "good"),
	}
	consumers := map[string][]string{
		events.OrderConfirmed.Name: {"analytics-service", "notification-service"},
		events.EmailSend.Name:      {"notification-service"},
	}
	plain, broken := `{"what":"no CloudEvent"}`, `{"what":"broken"`
	for topic, after := range good {
		w := s.wire(t, s, topic)
		w.publish(t, event{topic: topic, key: key, body: plain, noCloudEvent: true})
		w.publish(t, event{topic: topic, key: key, body: broken, id: "bad-" + topic})
		w.publish(t, after)
	}
	s.stray(1)
	s.sold(t, "bad", 1)
	s.arrived(t, user, "good")
	s.arrived(t, user, "Order 920001 is confirmed")
	for topic, services := range consumers {
		for _, service := range services {
			db := s.openDB(t, service)
			for body, why := range map[string]string{plain: "expected a CloudEvent", broken: "JSON"} {
				eventually(t, func() string {
					var n int
					var reason string
					err := db.QueryRowContext(t.Context(), `SELECT count(*), coalesce(max(reason), '') FROM kaptar_dead_letters
						WHERE topic = $1 AND grp = $2 AND payload = $3`, topic, service, []byte(body)).Scan(&n, &reason)
					if err != nil || n != 1 || !strings.Contains(reason, why) {
						return fmt.Sprintf("%d dead letters of %s on %s with %s, %q, %v; want one because of %s", n, service, topic, body, reason, err, why)
					}
					return ""
				})
			}
		}
	}
}

// foreignEvents publishes what programs without kaptar may: two publishers with the same ids, events in
// structured mode, and what is not to be believed.
func foreignEvents(t *testing.T, s *site) {
	user := s.as(t).signUp("far")
	confirmed, mails, captured := s.wire(t, s, events.OrderConfirmed.Name), s.wire(t, s, events.EmailSend.Name), s.wire(t, s, events.PaymentCaptured.Name)

	hostile := map[string]struct {
		wire
		event
		why       string
		consumers []string
	}{
		"all the money": {captured, event{topic: events.PaymentCaptured.Name, id: "far-3", key: "far",
			body: `{"order_id":930101,"user_id":1,"amount_cents":9223372036854775807}`}, "amount_cents 9223372036854775807", []string{"analytics-service"}},
		"all the money again": {captured, event{topic: events.PaymentCaptured.Name, id: "far-4", key: "far", structured: true,
			body: `{"order_id":930102,"user_id":1,"amount_cents":9223372036854775807}`}, "amount_cents 9223372036854775807", []string{"analytics-service"}},
		"less than nothing": {confirmed, event{topic: events.OrderConfirmed.Name, id: "far-5", key: "far",
			body: fmt.Sprintf(`{"order_id":930103,"user_id":%d,"items":[{"sku":"far","quantity":1,"price_cents":1}],"total_cents":-100000000}`, user)},
			"total_cents -100000000", []string{"analytics-service", "notification-service"}},
		"another topic's": {confirmed, event{topic: events.OrderConfirmed.Name, kind: events.OrderCancelled.Name, id: "far-6", key: "far",
			body: confirmation("", "", 930_104, user, "far").body}, `ce-type is "order.cancelled.v1"`, []string{"analytics-service", "notification-service"}},
		"another topic's, structured": {confirmed, event{topic: events.OrderConfirmed.Name, kind: events.OrderCancelled.Name, id: "far-7", key: "far", structured: true,
			body: confirmation("", "", 930_105, user, "far").body}, `ce-type is "order.cancelled.v1"`, []string{"analytics-service", "notification-service"}},
		"a mail to nobody": {mails, event{topic: events.EmailSend.Name, id: "far-8", key: "far", structured: true,
			body: `{"user_id":0,"subject":"far","body":""}`}, "user_id 0", []string{"notification-service"}},
	}
	for _, h := range hostile {
		h.publish(t, h.event)
	}
	for i, e := range []event{{source: "/far/a"}, {source: "/far/b"}, {source: "/far/c", structured: true}} { // one id, three events
		good := confirmation("far-1", fmt.Sprint("far", i), int64(930_001+i), user, "far")
		good.source, good.structured = e.source, e.structured
		for range 2 { // each twice
			confirmed.publish(t, good)
		}
		s.stray(1)
	}
	mail := letter("far-2", user, "structured")
	mail.structured = true
	mails.publish(t, mail)
	mails.publish(t, mail)

	s.sold(t, "far", 3)
	s.arrived(t, user, "structured")
	for i := range 3 {
		subject := fmt.Sprintf("Order %d is confirmed", 930_001+i)
		if all := s.arrived(t, user, subject); count(all, subject) != 1 || count(all, "structured") > 1 {
			t.Errorf("mails %q, want each once", all)
		}
	}
	for name, h := range hostile {
		for _, service := range h.consumers {
			db := s.openDB(t, service)
			eventually(t, func() string {
				var n int
				var reason string
				err := db.QueryRowContext(t.Context(), `SELECT count(*), coalesce(max(reason), '') FROM kaptar_dead_letters
					WHERE topic = $1 AND grp = $2 AND msgid = $3 AND state = 'dead'`, h.topic, service, h.id).Scan(&n, &reason)
				if err != nil || n != 1 || !strings.Contains(reason, h.why) {
					return fmt.Sprintf("%s: %d dead letters of %s with %q, %v; want one because of %s", name, n, service, reason, err, h.why)
				}
				return ""
			})
		}
	}
	var got sales
	if problem := s.as(t).read("/v1/sales", &got); problem != "" {
		t.Errorf("the sales cannot be read: %s", problem)
	}
}

// processed finds how many deliveries a service has handled, by topic and outcome.
var processed = regexp.MustCompile(`(?m)^messaging_processed_total\{outcome="(?:ok|duplicate)",service="([^"]+)",topic="([^"]+)"\} (\d+)$`)

// deliveries is how many deliveries of topic a service has handled since its start.
func deliveries(c client, service, topic string) (n int) {
	c.t.Helper()
	for _, found := range processed.FindAllStringSubmatch(c.call(http.MethodGet, service, "/metrics", "").body, -1) {
		if found[1] == service && found[2] == topic {
			one, _ := strconv.Atoi(found[3])
			n += one
		}
	}
	return n
}

// lateMessages delivers events of an order again that was finished before everything
// was restarted: nothing changes.
func lateMessages(t *testing.T, s *site) {
	c := s.as(t)
	orders := s.entries()
	old := orders[slices.IndexFunc(orders, func(e entry) bool { return e.want == "confirmed" })]
	s.audit(t)
	for topic, consumers := range map[string][]string{
		events.OrderPlaced.Name:     {"analytics-service"},
		events.PaymentCaptured.Name: {"analytics-service"},
		events.OrderConfirmed.Name:  {"analytics-service", "notification-service"},
		events.EmailSend.Name:       {"notification-service"},
	} {
		before := make(map[string]int)
		for _, service := range consumers {
			before[service] = deliveries(c, service, topic)
		}
		part := fmt.Sprintf(`"order_id":%d,`, old.id)
		if topic == events.EmailSend.Name {
			part = fmt.Sprintf("Order %d is confirmed", old.id)
		}
		s.wire(t, s, topic).again(t, topic, part)
		for _, service := range consumers {
			eventually(t, func() string {
				if n := deliveries(c, service, topic); n <= before[service] {
					return fmt.Sprintf("%s has handled no old event on %s", service, topic)
				}
				return ""
			})
		}
	}
	s.audit(t)
}
