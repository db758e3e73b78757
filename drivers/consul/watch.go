package consul

import (
	"context"
	"net/url"
	"slices"
	"time"

	"github.com/kaptar/kaptar/discovery"
)

// Watch implements discovery.Resolver with blocking queries. It fails only for a name that is not
// possible.
//
// While Consul does not answer, the last list stands. When it is back, instances that it has
// forgotten stay on the list for about 10 s: an agent that has been started again holds HTTP checks
// for red until it has made them, and one that has lost its data hears from the instances within
// seconds.
func (r *registry) Watch(ctx context.Context, service string, update func([]discovery.Instance)) error {
	if err := checkName("service", service); err != nil {
		return err
	}
	settings := r.client.set
	query := url.Values{}
	if settings.datacenter != "" {
		query.Set("dc", settings.datacenter)
	}
	if settings.passing {
		query.Set("passing", "true")
	}
	v := view{hold: 6*time.Second + 2*settings.interval, tell: discovery.Changes(update)}
	path := healthPath(service)
	r.client.follow(ctx, path, query, func(body []byte, after bool) (time.Duration, error) {
		var list []listed
		if err := r.client.decode(path, body, &list); err != nil {
			return 0, err
		}
		return v.see(instances(list), after, time.Now()), nil
	})
	return nil
}

func healthPath(service string) string { return "/v1/health/service/" + url.PathEscape(service) }

// view is what a watcher has been told.
type view struct {
	hold time.Duration // how long instances survive that are missing after an outage
	tell func([]discovery.Instance)

	last  []discovery.Instance // told; nil: none yet
	until time.Time            // end of the hold
}

// see tells a new list, and returns when to look again; 0 = at the next change.
func (v *view) see(list []discovery.Instance, afterOutage bool, now time.Time) (again time.Duration) {
	if afterOutage && v.last != nil {
		v.until = now.Add(v.hold)
	}
	if now.Before(v.until) {
		for _, old := range v.last {
			if _, found := slices.BinarySearchFunc(list, old, byID); !found {
				list = append(list, old)
				slices.SortFunc(list, byID)
				again = v.until.Sub(now)
			}
		}
	}
	v.last = list
	v.tell(list)
	return again
}
