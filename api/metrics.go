package api

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

// counters are the api's own metrics.
type counters struct {
	forwarded prometheus.Counter
	failed    prometheus.Counter
	streams   *prometheus.GaugeVec   // open, by group
	entries   *prometheus.CounterVec // sent in them
}

func newCounters() counters {
	return counters{
		forwarded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "understudy_requests_forwarded_total",
			Help: "Requests that another node answered for this one.",
		}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "understudy_requests_failed_in_switch_total",
			Help: "Requests that found no primary in time, or whose outcome got lost while they were forwarded.",
		}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "understudy_journal_streams",
			Help: "Streams of journals and of the history that are open at this node.",
		}, []string{"group"}),
		entries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_journal_streams_entries_total",
			Help: "Entries that this node has sent in streams.",
		}, []string{"group"}),
	}
}

func (c counters) register(r prometheus.Registerer) error {
	for _, m := range []prometheus.Collector{c.forwarded, c.failed, c.streams, c.entries} {
		if err := r.Register(m); err != nil {
			return err
		}
	}
	return nil
}

// metrics answers in the format the scraper asks for.
func (a *API) metrics(r *request) (reply, error) {
	return func(w http.ResponseWriter) { a.gathered.ServeHTTP(w, r.Request) }, nil
}
