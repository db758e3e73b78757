package kaptar_test

import (
	"fmt"
	"testing"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
)

// many are n services and the sources that package local would give them.
func many(n int) (config.Sources, []kaptar.Service) {
	src := config.Sources{Defaults: map[string]string{}, Env: []string{"PATH=/bin", "HOME=/root", "LOG_LEVEL=WARN", "S_1_DEBUG=yes", "CLIENTS_S_2_TIMEOUT=3s"}}
	var services []kaptar.Service
	for i := range n {
		name := fmt.Sprintf("s-%d", i)
		services = append(services, kaptar.Service{Name: name, Setup: func(*kaptar.App) error { return nil }, Settings: new(struct {
			Colour string `config:"colour" default:"blue"`
		})})
		src.Defaults["services."+name+".listen"] = "127.0.0.1:0"
		src.Defaults["services."+name+".database_url"] = "sqlite:" + name + ".db"
	}
	return src, services
}

// The work grows with the services, not with their square. Memory is counted instead of time, which
// other programs stretch; so this test is not parallel.
func TestSettingsOfManyServices(t *testing.T) {
	work := func(n int) (load, setLive float64) {
		src, services := many(n)
		loaded, err := (&kaptar.Options{Sources: src}).Load(services...)
		if err != nil {
			t.Fatal(err)
		}
		load = testing.AllocsPerRun(2, func() { _, _ = (&kaptar.Options{Sources: src}).Load(services...) })
		i := 0
		setLive = testing.AllocsPerRun(2, func() {
			i++
			values := map[string]string{"services.s-7.log_level": fmt.Sprint("INFO+", i)}
			if changed, err := loaded.SetLive(values, func(key string) string { return key }); err != nil || len(changed) != 0 { // LOG_LEVEL wins
				t.Error(len(changed), err)
			}
		})
		return load, setLive
	}
	loadFew, liveFew := work(50)
	loadMany, liveMany := work(200)
	if loadMany > 5*loadFew || liveMany > 5*liveFew {
		t.Errorf("allocations for 50 and 200 services: Load %v and %v, SetLive %v and %v; want about four times as many", loadFew, loadMany, liveFew, liveMany)
	}
	if liveMany > loadMany/4 {
		t.Errorf("SetLive makes %v allocations, Load %v: it should not read everything again", liveMany, loadMany)
	}
}

// BenchmarkLoad loads the settings of 200 services.
func BenchmarkLoad(b *testing.B) {
	src, services := many(200)
	for b.Loop() {
		if _, err := (&kaptar.Options{Sources: src}).Load(services...); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSetLive changes one live setting of 200 services.
func BenchmarkSetLive(b *testing.B) {
	src, services := many(200)
	src.Env = src.Env[:2]
	loaded, err := (&kaptar.Options{Sources: src}).Load(services...)
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		level := []string{"WARN", "ERROR"}[i%2]
		changed, err := loaded.SetLive(map[string]string{"log_level": level}, func(key string) string { return "store " + key })
		if err != nil || len(changed) != 200 {
			b.Fatal(len(changed), err)
		}
	}
}
