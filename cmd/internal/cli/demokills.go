package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// killRepeatedly kills the primary again and again under load. Each time writes must go on by themselves, and the killed
// node must come back in sync by itself. Every third node is started again at once, as a supervisor would; the others
// after the failover.
func (d *demo) killRepeatedly(ctx context.Context) error {
	if _, err := d.start(ctx); err != nil {
		return err
	}
	if d.options.source != "" {
		if err := d.load(ctx); err != nil {
			return err
		}
	}
	d.writer = startWriter(d.client, d.options.writers)
	if err := d.writer.await(ctx, 200, failoverLimit); err != nil {
		return err
	}
	var pauses, returns []time.Duration
	var sum writerStats
	for i := range d.options.kills {
		k, err := d.killOnce(ctx, i%3 == 2)
		if err != nil {
			return fmt.Errorf("kill %d of %d: %w", i+1, d.options.kills, err)
		}
		pauses, returns = append(pauses, k.stats.longest), append(returns, k.back)
		sum.acknowledged += k.stats.acknowledged
		sum.failed += k.stats.failed
		sum.unknown += k.stats.unknown
		d.step(fmt.Sprintf("kill %d/%d", i+1, d.options.kills), "%s; %s is %s again after %s; %s",
			fromTo(k.from, k.to), k.from, k.role, humanDuration(k.back), k.stats)
	}
	d.step("kills", "%s; pause %s; return %s", plural(len(pauses), "kill", "kills"), spread(pauses), spread(returns))
	d.detail("%s acknowledged, %s failed, %s unknown", humanCount(sum.acknowledged), humanCount(sum.failed), humanCount(sum.unknown))
	return d.compare(ctx)
}

// killing is what one kill did.
type killing struct {
	from, to string        // the primary before and after; the same when the restarted node got its role again
	role     string        // of the killed node afterwards
	back     time.Duration // from the start of the killed node until it was level
	stats    writerStats   // of the writers, from the kill until then
}

// killOnce kills the primary and returns when the cluster is whole again.
func (d *demo) killOnce(ctx context.Context, atOnce bool) (k killing, err error) {
	var g client.GroupStatus
	err = d.until(ctx, resyncLimit, "a secondary in sync", func(now client.GroupStatus) bool {
		g = now // with an empty set the loss of the primary is no case for a failover
		return now.Phase == "opened" && now.Primary != "" && len(now.InSync) > 0
	})
	if err != nil {
		return k, err
	}
	victim := d.cluster.node(g.Primary)
	k.from = victim.name
	d.writer.look()
	victim.process.kill()
	began := time.Now()
	if !atOnce {
		if err := d.writer.await(ctx, d.options.writers+10, failoverLimit); err != nil {
			return k, err
		}
		began = time.Now()
	}
	if err := d.cluster.startNode(victim); err != nil {
		return k, err
	}
	if atOnce {
		if err := d.writer.await(ctx, d.options.writers+10, failoverLimit); err != nil {
			return k, err
		}
	}
	if k.role, err = d.level(ctx, victim); err != nil {
		return k, err
	}
	k.back = time.Since(began)
	if g, err = d.group(ctx); err != nil {
		return k, err
	}
	k.to, k.stats = g.Primary, d.writer.look()
	return k, nil
}

// spread prints the range of durations and their median.
func spread(all []time.Duration) string {
	sorted := slices.Sorted(slices.Values(all))
	return fmt.Sprintf("%s to %s, median %s", humanDuration(sorted[0]), humanDuration(sorted[len(sorted)-1]), humanDuration(sorted[len(sorted)/2]))
}
