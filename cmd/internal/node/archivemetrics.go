package node

import "github.com/prometheus/client_golang/prometheus"

// archiveMetrics reads the archiver's counts at every scrape.
type archiveMetrics struct {
	n *Node

	written, found, failures, bytes, pending *prometheus.Desc
	recalled, recalledBytes                  *prometheus.Desc
}

func newArchiveMetrics(n *Node) *archiveMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("understudy_archive_"+name, help, labels, prometheus.Labels{"node": string(n.config.Node)})
	}
	return &archiveMetrics{
		n:             n,
		written:       desc("receivers_total", "Receivers that this node archived and read back."),
		found:         desc("receivers_found_total", "Receivers that another node, or an earlier life of this one, had archived; read back."),
		failures:      desc("failures_total", "Attempts that failed. They are repeated."),
		bytes:         desc("bytes_total", "Size of the receivers that this node archived, before compression."),
		pending:       desc("receivers_pending", "Detached receivers here that do not count as archived yet."),
		recalled:      desc("recalled_receivers_total", "Receivers read back for nodes that were away.", "group"),
		recalledBytes: desc("recalled_bytes_total", "Size of the receivers read back for nodes that were away.", "group"),
	}
}

func (m *archiveMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.written, m.found, m.failures, m.bytes, m.pending, m.recalled, m.recalledBytes} {
		ch <- d
	}
}

func (m *archiveMetrics) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	a := m.n.archiver
	count(m.written, a.written.Load())
	count(m.found, a.found.Load())
	count(m.failures, a.failed.Load())
	count(m.bytes, a.bytes.Load())
	ch <- prometheus.MustNewConstMetric(m.pending, prometheus.GaugeValue, float64(a.backlog()))
	for _, rep := range m.n.replicas.all() {
		receivers, bytes := rep.Recalled()
		count(m.recalled, receivers, string(rep.Group()))
		count(m.recalledBytes, bytes, string(rep.Group()))
	}
}
