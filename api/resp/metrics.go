package resp

import "github.com/prometheus/client_golang/prometheus"

// counters are the metrics of the Redis interface.
type counters struct {
	connections prometheus.Gauge
	refused     prometheus.Counter // connections
	commands    prometheus.Counter
	relayed     prometheus.Counter // commands
	unknown     prometheus.Counter // outcomes
	late        prometheus.Counter // commands for which no primary was found in time
	broken      prometheus.Counter // connections closed for what they sent, or for not taking replies
}

func newCounters() counters {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "understudy_redis_" + name + "_total", Help: help})
	}
	return counters{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{Name: "understudy_redis_connections", Help: "Open connections of Redis clients."}),
		refused:     counter("connections_refused", "Connections refused because there are too many."),
		commands:    counter("commands", "Commands that were read."),
		relayed:     counter("commands_relayed", "Commands relayed to the primary."),
		unknown:     counter("unknown_outcomes", "Writes answered with an unknown outcome."),
		late:        counter("no_primary", "Commands that found no primary in time."),
		broken:      counter("connections_broken", "Connections closed for protocol errors or replies not taken."),
	}
}

func (c *counters) register(r prometheus.Registerer) error {
	for _, m := range []prometheus.Collector{c.connections, c.refused, c.commands, c.relayed, c.unknown, c.late, c.broken} {
		if err := r.Register(m); err != nil {
			return err
		}
	}
	return nil
}
