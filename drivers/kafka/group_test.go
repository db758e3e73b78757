package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kaptar/kaptar/drivers/kafka"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/driver"
)

// committed returns the sum of a group's offsets on a topic: the number of messages that it will
// not get again.
func committed(tb testing.TB, adm *kadm.Client, group, topic string) int64 {
	tb.Helper()
	offsets, err := adm.FetchOffsetsForTopics(tb.Context(), group+"/"+topic, topic)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		tb.Fatal(err)
	}
	var sum int64
	offsets.Each(func(o kadm.OffsetResponse) { sum += max(o.At, 0) })
	return sum
}

// TestCommitIsTheLowest: an acknowledgement out of order is not committed before those below it.
func TestCommitIsTheLowest(t *testing.T) {
	t.Parallel()
	_, url := fake(t)
	b := open(t, url)
	defer closeNow(t, b)
	adm := kadm.NewClient(plainClient(t, url))
	publish(t, b, messages("t", "m", 6)...)
	got, stop := start(t, b, driver.Subscription{Topic: "t", Group: "g", From: driver.FromBeginning})
	var list []driver.Delivery
	for range 6 {
		list = append(list, next(t, got))
	}
	for _, step := range []struct {
		acks []int
		want int64
	}{{[]int{1, 3, 4}, 0}, {[]int{0}, 2}, {[]int{2}, 5}} {
		for _, i := range step.acks {
			ack(t, list[i])
		}
		until(t, fmt.Sprint("the commit of ", step.want), func() bool { return committed(t, adm, "g", "t") == step.want })
	}
	if err := stop(); err != nil {
		t.Errorf("Subscribe = %v, want nil", err)
	}
	if n := committed(t, adm, "g", "t"); n != 5 {
		t.Errorf("with the last of 6 messages not acknowledged %d are committed, want 5", n)
	}
	ack(t, list[5]) // after Subscribe returned: the member is still in the group
	until(t, "the commit of a late Ack", func() bool { return committed(t, adm, "g", "t") == 6 })
	ack(t, list[0])
	if n := committed(t, adm, "g", "t"); n != 6 {
		t.Errorf("after a second Ack %d are committed, want 6", n)
	}
}

// TestStopCommits: what was acknowledged just before the end does not come to the next process.
func TestStopCommits(t *testing.T) {
	t.Parallel()
	_, url := fake(t)
	adm := kadm.NewClient(plainClient(t, url))
	for name, end := range map[string]func(b *kafka.Broker, stop func() error){
		"cancel": func(_ *kafka.Broker, stop func() error) { _ = stop() },
		"close":  func(b *kafka.Broker, _ func() error) { closeNow(t, b) },
	} {
		b := open(t, url)
		publish(t, b, messages(name, "m", 20)...)
		got, stop := start(t, b, driver.Subscription{Topic: name, Group: "g", From: driver.FromBeginning})
		for range 20 {
			ack(t, next(t, got))
		}
		end(b, stop)
		if n := committed(t, adm, "g", name); n != 20 {
			t.Errorf("%s: %d are committed, want 20", name, n)
		}
		closeNow(t, b)
	}
}

// TestFromNowIsPinned: the offset of a new group is written down before anything is acknowledged.
func TestFromNowIsPinned(t *testing.T) {
	t.Parallel()
	_, url := fake(t)
	b := open(t, url)
	defer closeNow(t, b)
	publish(t, b, messages("t", "old", 3)...)
	_, stop := start(t, b, driver.Subscription{Topic: "t", Group: "g", From: driver.FromNow})
	adm := kadm.NewClient(plainClient(t, url))
	until(t, "the offset of the group", func() bool { return committed(t, adm, "g", "t") == 3 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	publish(t, b, messages("t", "new", 2)...)
	got, _ := start(t, b, driver.Subscription{Topic: "t", Group: "g", From: driver.FromNow})
	if d := next(t, got); d.ID != "new0" {
		t.Errorf("the group got %s first, want new0, which came while it was away", d.ID)
	}
}

// TestNewPartition: partitions that a topic gets later are read from their beginning, also by a
// group from now.
func TestNewPartition(t *testing.T) {
	t.Parallel()
	url := servertest.Shared(t, servers.Kafka).URL()
	b := open(t, url)
	defer closeNow(t, b)
	const topic = "grows"
	_, stop := start(t, b, driver.Subscription{Topic: topic, Group: "g", From: driver.FromNow})
	adm := kadm.NewClient(plainClient(t, url))
	until(t, "the offset of the group", func() bool {
		offsets, err := adm.FetchOffsetsForTopics(t.Context(), "g/"+topic, topic)
		n := 0
		offsets.Each(func(o kadm.OffsetResponse) {
			if o.At >= 0 {
				n++
			}
		})
		return err == nil && n == 4
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := adm.CreatePartitions(t.Context(), 1, topic); err != nil {
		t.Fatal(err)
	}
	until(t, "the new partition", func() bool {
		foreign := plainClient(t, url, kgo.RecordPartitioner(kgo.ManualPartitioner())) // one that asks for the partitions
		return foreign.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: 4, Headers: []kgo.RecordHeader{{Key: "ce_id", Value: []byte("x")}}}).FirstErr() == nil
	})
	got, _ := start(t, b, driver.Subscription{Topic: topic, Group: "g", From: driver.FromNow})
	if d := next(t, got); d.ID != "x" {
		t.Errorf("from the new partition came %s, want x", d.ID)
	}
}

// TestMembersShare: two programs share the partitions, and each message comes to one of them.
func TestMembersShare(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{"kfake": second(fake(t)), "real": servertest.Shared(t, servers.Kafka).URL()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one, two := open(t, url), open(t, url)
			defer closeNow(t, one)
			defer closeNow(t, two)
			sub := driver.Subscription{Topic: "shared", Group: "g", From: driver.FromBeginning}
			seen := make(map[string]string) // message -> member
			gotOne, _ := start(t, one, sub)
			gotTwo, stopTwo := start(t, two, sub)
			shares := func() (int, int) {
				var a, b int
				for _, by := range seen {
					if by == "one" {
						a++
					} else {
						b++
					}
				}
				return a, b
			}
			take := func(by string, d driver.Delivery) {
				// What waited here while its partition moved comes again, to the other one.
				if err := d.Ack(t.Context()); err != nil && !strings.Contains(err.Error(), "another member") {
					t.Errorf("Ack of %s = %v, want nil", d.ID, err)
				}
				seen[d.ID] = by
			}
			for round := 0; ; round++ { // until both have had some
				if a, b := shares(); a > 0 && b > 0 && len(seen) == round*40 {
					break
				}
				if round > 200 {
					t.Fatal("one of two members got nothing of 200 batches")
				}
				for i := range 40 {
					publish(t, one, driver.Message{ID: fmt.Sprintf("%d-%d", round, i), Topic: "shared", Key: fmt.Sprint(i)})
				}
				for len(seen) < (round+1)*40 {
					select {
					case d := <-gotOne:
						take("one", d)
					case d := <-gotTwo:
						take("two", d)
					case <-time.After(30 * time.Second):
						t.Fatalf("%d of %d messages came", len(seen), (round+1)*40)
					}
				}
			}
			if err := stopTwo(); err != nil {
				t.Fatal(err)
			}
			publish(t, one, messages("shared", "last", 1)...)
			for next(t, gotOne).ID != "last0" {
			}
		})
	}
}

func second[A, B any](_ A, b B) B { return b }

// TestOldOwnerDoesNotCommit: what a member holds when its partition moves to another program is
// with the new owner, and the old one's late word does not count.
func TestOldOwnerDoesNotCommit(t *testing.T) {
	t.Parallel()
	_, url := fake(t)
	one, two := open(t, url), open(t, url)
	defer closeNow(t, one)
	defer closeNow(t, two)
	adm := kadm.NewClient(plainClient(t, url))
	for i := range 40 {
		publish(t, one, driver.Message{ID: fmt.Sprint(i), Topic: "t", Key: fmt.Sprint(i)})
	}
	sub := driver.Subscription{Topic: "t", Group: "g", From: driver.FromBeginning}
	gotOne, _ := start(t, one, sub)
	held := make(map[string]driver.Delivery)
	for range 40 {
		d := next(t, gotOne)
		held[d.ID] = d
	}
	gotTwo, stopTwo := start(t, two, sub)
	moved := next(t, gotTwo)
	if err := held[moved.ID].Ack(t.Context()); err == nil || !strings.Contains(err.Error(), "another member") {
		t.Errorf("Ack of %s, which moved to another program, = %v, want an error that says so", moved.ID, err)
	}
	if err := stopTwo(); err != nil { // it acknowledged nothing
		t.Fatal(err)
	}
	if n := committed(t, adm, "g", "t"); n != 0 {
		t.Errorf("%d messages are committed, want none: nobody who had them acknowledged them", n)
	}
}

// TestRebalanceStorm: members of two programs join and leave every 200 ms while messages are
// published.
func TestRebalanceStorm(t *testing.T) {
	t.Parallel()
	const keys, rounds, batch = 16, 16, 64
	_, url := fake(t)
	brokers := []*kafka.Broker{open(t, url), open(t, url)}
	for _, b := range brokers {
		defer closeNow(t, b)
	}
	var mu sync.Mutex
	first := make(map[string][]string) // first deliveries by key
	count := make(map[string]int)
	repeated := 0
	handle := func(d driver.Delivery) {
		mu.Lock()
		if count[d.ID]++; count[d.ID] == 1 {
			first[d.Key] = append(first[d.Key], d.ID)
		} else {
			repeated++
		}
		mu.Unlock()
		time.AfterFunc(2*time.Millisecond, func() { _ = d.Ack(context.Background()) })
	}
	sub := driver.Subscription{Topic: "t", Group: "g", From: driver.FromBeginning}
	type running struct {
		cancel context.CancelFunc
		done   chan error
	}
	join := func(b *kafka.Broker) running {
		ctx, cancel := context.WithCancel(t.Context())
		r := running{cancel, make(chan error, 1)}
		go func() { r.done <- b.Subscribe(ctx, sub, handle) }()
		return r
	}
	members := []running{join(brokers[0]), join(brokers[1])}
	want := make(map[string][]string)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for round := range rounds {
		msgs := make([]driver.Message, batch)
		for i := range msgs {
			key := fmt.Sprint("k", i%keys)
			msgs[i] = driver.Message{ID: fmt.Sprintf("%03d-%03d", round, i), Topic: "t", Key: key}
			want[key] = append(want[key], msgs[i].ID)
		}
		publish(t, brokers[round%2], msgs...)
		<-tick.C
		if round%2 == 0 {
			members = append(members, join(brokers[round/2%2]))
		} else {
			members[0].cancel()
			if err := <-members[0].done; err != nil {
				t.Errorf("Subscribe = %v, want nil", err)
			}
			members = members[1:]
		}
	}
	until(t, "all messages", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(count) == rounds*batch
	})
	adm := kadm.NewClient(plainClient(t, url))
	until(t, "all commits", func() bool { return committed(t, adm, "g", "t") == rounds*batch })
	for _, m := range members {
		m.cancel()
		if err := <-m.done; err != nil {
			t.Errorf("Subscribe = %v, want nil", err)
		}
	}
	for key, list := range want {
		if !slices.Equal(first[key], list) {
			t.Errorf("first deliveries of %s came as %v, want %v", key, first[key], list)
		}
	}
	t.Logf("%d messages, %d deliveries more than once", rounds*batch, repeated)
}

// TestDeletedTopic: a subscription that can never get a message again says so, and publishing makes
// the topic anew. The group gets what came there before it was back, also when it began from now.
func TestDeletedTopic(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{"kfake": second(fake(t)), "real": servertest.Shared(t, servers.Kafka).URL()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, url)
			defer closeNow(t, b)
			publish(t, b, messages("deleted", "m", 1)...)
			result := make(chan error, 1)
			got := make(chan driver.Delivery, 10)
			go func() {
				result <- b.Subscribe(t.Context(), driver.Subscription{Topic: "deleted", Group: "g", From: driver.FromBeginning}, func(d driver.Delivery) { got <- d })
			}()
			ack(t, next(t, got))
			if _, err := kadm.NewClient(plainClient(t, url)).DeleteTopic(t.Context(), "deleted"); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-result:
				if err == nil || !strings.Contains(err.Error(), "deleted: ") || !strings.Contains(err.Error(), "subscribe g to deleted") {
					t.Errorf("Subscribe whose topic was deleted = %v, want an error that says so", err)
				}
			case <-time.After(40 * time.Second):
				t.Fatal("Subscribe still runs 40s after its topic was deleted")
			}
			until(t, "the topic to be made again", func() bool { return b.Publish(t.Context(), messages("deleted", "n", 1)) == nil })
			again, _ := start(t, b, driver.Subscription{Topic: "deleted", Group: "g", From: driver.FromNow})
			if d := next(t, again); d.ID != "n0" {
				t.Errorf("the group got %s first from the new topic, want n0", d.ID)
			}
		})
	}
}
