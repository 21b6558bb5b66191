package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/understudy-ha/understudy/replica"
)

// localMetrics tells of the files that this node keeps for itself. They have no group, and so no such label.
type localMetrics struct {
	n *Node

	writable, last, bytes, limit, free, runway, full, hidden *prometheus.Desc
}

func newLocalMetrics(n *Node) *localMetrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("understudy_local_"+name, help, nil, prometheus.Labels{"node": string(n.config.Node)})
	}
	return &localMetrics{
		n:        n,
		writable: desc("writable", "1 while this node takes writes to local files."),
		last:     desc("journal_last_sequence", "Last entry of the journal of local files."),
		bytes:    desc("journal_bytes", "Size of its receivers."),
		limit:    desc("journal_limit_bytes", "The most that it may take; 0: no cap."),
		free:     desc("journal_free_bytes", "Bytes free on its disk; absent: not known."),
		runway:   desc("journal_runway_seconds", "Time until it is full at the rate of the last minutes; +Inf: it does not grow; absent: not known."),
		full:     desc("journal_full", "1 while it takes nothing for want of room."),
		hidden:   desc("hidden_records", "Local records in files that a group selects by now."),
	}
}

func (m *localMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.writable, m.last, m.bytes, m.limit, m.free, m.runway, m.full, m.hidden} {
		ch <- d
	}
}

func (m *localMetrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	l := m.n.local
	var hidden uint64
	for _, h := range l.concealed() {
		hidden += h.Records
	}
	gauge(m.hidden, float64(hidden))
	if l.rep == nil {
		gauge(m.writable, 0)
		return
	}
	s := l.rep.Status()
	gauge(m.writable, truth(s.Serving && l.failure() == nil))
	for _, j := range s.Journals {
		m.journal(gauge, j)
	}
}

func (m *localMetrics) journal(gauge func(*prometheus.Desc, float64), j replica.JournalStatus) {
	gauge(m.last, float64(j.View.Last))
	gauge(m.bytes, float64(j.View.Bytes))
	gauge(m.limit, float64(j.Space.Limit))
	gauge(m.full, truth(j.Space.Full != nil))
	if j.Space.Free > 0 {
		gauge(m.free, float64(j.Space.Free))
	}
	if seconds, ok := runwayGauge(j.Space.Runway); ok {
		gauge(m.runway, seconds)
	}
}
