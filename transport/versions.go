package transport

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/kaptar/kaptar/internal/label"
)

// mostVersions is how many versions of a target have series of their own, those that were there before
// included. Further ones share the version otherTargets.
const mostVersions = 16

// versionMetrics has the series of one version of a target, each made when it is first needed, and
// looked up once. Nil counts nothing.
type versionMetrics struct {
	*targetMetrics
	version  string // as a label
	listed   int    // instances; guarded by the target's mu, as is gone
	gone     bool   // another version has its room
	duration [protocols]atomic.Pointer[prometheus.Observer]
	codes    [protocols]atomic.Pointer[[]codeCounter]
}

// of returns the metrics of a version for an instance; drop must follow when that is gone. The series
// of a version stay when it has no instance any more, until others need the room: the last calls are
// still to be seen.
func (m *targetMetrics) of(version string) *versionMetrics {
	if version == "" {
		return m.none
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	version = strings.ToValidUTF8(version[:min(len(version), maxVersion)], "_")
	named := func(v *versionMetrics) bool { return v.version == version }
	i := slices.IndexFunc(m.versions, named)
	if i < 0 && len(m.versions) >= mostVersions {
		if old := slices.IndexFunc(m.versions, func(v *versionMetrics) bool { return v.listed == 0 }); old >= 0 {
			m.versions[old].gone = true
			m.forget(m.versions[old])
			m.versions = slices.Delete(m.versions, old, old+1)
		} else {
			version = otherTargets
			i = slices.IndexFunc(m.versions, named)
		}
	}
	if i < 0 {
		i = len(m.versions)
		m.versions = append(m.versions, &versionMetrics{targetMetrics: m, version: version})
		if !m.left { // from 0 on, or a rate would not see the first
			m.ejections.WithLabelValues(m.caller, m.target, version)
			m.openings.WithLabelValues(m.caller, m.target, version)
		}
	}
	m.versions[i].listed++
	return m.versions[i]
}

const maxVersion = 128 // bytes of a label

// drop ends what of began.
func (m *versionMetrics) drop() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listed--
}

// forget deletes the series of a version. m.mu must be held.
func (m *targetMetrics) forget(v *versionMetrics) {
	for p := range protocols {
		m.metrics.duration.DeleteLabelValues(m.caller, m.target, v.version, p.String())
		if list := v.codes[p].Load(); list != nil {
			for _, counter := range *list {
				m.requests.DeleteLabelValues(m.caller, m.target, v.version, p.String(), counter.label(p))
			}
		}
	}
	m.ejections.DeleteLabelValues(m.caller, m.target, v.version)
	m.openings.DeleteLabelValues(m.caller, m.target, v.version)
}

// counts is where a call is counted: by the version of the instance of its last attempt.
func (c *call) counts() *versionMetrics {
	switch {
	case c.alone:
		return nil
	case c.in == nil:
		return c.tg.metrics.none
	}
	return c.in.metrics
}

func (m *versionMetrics) http(status int, took time.Duration) {
	why := ""
	if status < 100 || status > 599 { // as label.Status has it, which would make a text of each
		status, why = 0, label.Other
	}
	m.answered(overHTTP, status, why, took)
}

func (m *versionMetrics) grpc(code codes.Code, took time.Duration) {
	m.answered(overGRPC, int(label.Code(code)), "", took)
}

// seldom counts one in a vector of service, target and version.
func (m *versionMetrics) seldom(vec *prometheus.CounterVec) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.left && !m.gone {
		vec.WithLabelValues(m.caller, m.target, m.version).Inc()
	}
}

// answered counts a call; why is a word for one that got no answer.
func (m *versionMetrics) answered(p protocol, code int, why string, took time.Duration) {
	if m == nil {
		return
	}
	if observer, list := m.duration[p].Load(), m.codes[p].Load(); observer != nil {
		for i := range *list { // few: a search is faster than a map
			if counter := &(*list)[i]; counter.code == code && counter.why == why {
				counter.Inc()
				(*observer).Observe(took.Seconds())
				return
			}
		}
	}
	m.first(p, codeCounter{code: code, why: why}, took)
}

// first counts the first call with a code.
func (m *versionMetrics) first(p protocol, c codeCounter, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left || m.gone {
		return
	}
	var list []codeCounter
	if old := m.codes[p].Load(); old != nil {
		list = *old
	}
	c.Counter = m.requests.WithLabelValues(m.caller, m.target, m.version, p.String(), c.label(p))
	c.Inc()
	list = append(slices.Clip(list), c) // of two callers at once both add it, which does no harm
	m.codes[p].Store(&list)
	observer := m.metrics.duration.WithLabelValues(m.caller, m.target, m.version, p.String())
	observer.Observe(took.Seconds())
	m.duration[p].Store(&observer)
}
