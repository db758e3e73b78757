package kafka_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/kaptar/kaptar/drivers/kafka"
	"github.com/kaptar/kaptar/messaging/driver"
)

// TestDrain: a partition moves only when its old owner has finished what it holds, so that nothing
// comes twice.
func TestDrain(t *testing.T) {
	t.Parallel()
	cluster, url := fake(t)
	for try := 0; !drains(t, cluster, url, fmt.Sprint("t", try)); try++ {
		if try == 5 {
			t.Fatal("this machine took longer for each of 40 acknowledgements than a group waits")
		}
	}
}

// drains returns false, and says nothing of the group, if the acknowledgements took longer than the
// two seconds for which it waits.
func drains(t *testing.T, cluster *kfake.Cluster, url, topic string) bool {
	t.Helper()
	var brokers [2]*kafka.Broker
	for i := range brokers {
		var err error
		if brokers[i], err = kafka.Open(t.Context(), url, &kafka.Options{AckWait: time.Minute, Partitions: 4}); err != nil {
			t.Fatal(err)
		}
		defer closeNow(t, brokers[i])
	}
	one, two := brokers[0], brokers[1]
	for i := range 40 {
		publish(t, one, driver.Message{ID: fmt.Sprint(i), Topic: topic, Key: fmt.Sprint(i)})
	}
	sub := driver.Subscription{Topic: topic, Group: "g", From: driver.FromBeginning}
	gotOne, stopOne := start(t, one, sub)
	var held []driver.Delivery
	for range 40 {
		held = append(held, next(t, gotOne))
	}
	begun := time.Now()
	gotTwo, stopTwo := start(t, two, sub)
	for round := range 2 { // the first owner is told, and then the second
		if _, err := cluster.WaitGroupStable(t.Context(), "g/"+topic, 2); err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			<-time.After(300 * time.Millisecond) // of the two seconds
			for _, d := range held {
				_ = d.Ack(t.Context()) // what fails comes again
			}
			if time.Since(begun) > 1900*time.Millisecond {
				return errors.Join(stopOne(), stopTwo()) != nil
			}
		}
	}
	for i := range 40 {
		publish(t, one, driver.Message{ID: fmt.Sprint("late", i), Topic: topic, Key: fmt.Sprint(i)})
	}
	seen := make(map[string]bool)
	for len(seen) < 40 {
		var d driver.Delivery
		select {
		case d = <-gotOne:
		case d = <-gotTwo:
		case <-time.After(30 * time.Second):
			t.Fatalf("%d of 40 messages came", len(seen))
		}
		if d.Attempt > 1 || d.ID[0] != 'l' || seen[d.ID] {
			t.Errorf("message %s came again after its partition moved", d.ID)
		}
		seen[d.ID] = true
		ack(t, d)
	}
	return true
}
