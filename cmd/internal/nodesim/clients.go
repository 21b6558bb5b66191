package nodesim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/oracle"
	"github.com/understudy-ha/understudy/cmd/internal/redisload"
	"github.com/understudy-ha/understudy/replica"
)

// Files of the workloads.
const (
	registers = "registers" // few keys, overwritten and read
	elements  = "elements"  // each key is written once
	accounts  = "accounts"  // money goes from one to another in transactions
	counters  = "counters"  // only grow
)

// Size of the bank.
const (
	accountCount = 6
	balance      = 100
)

// workload is the clients of one schedule and what they know.
type workload struct {
	world    *world
	recorder *oracle.Recorder
	pace     time.Duration
	ctx      context.Context
	stop     context.CancelFunc
	running  sync.WaitGroup
	redis    *redisload.Load

	mu       sync.Mutex
	balances []oracle.Balance
	samples  []oracle.Sample
	moved    int // transfers done
}

func newWorkload(w *world) *workload {
	l := &workload{world: w, pace: 60 * time.Millisecond, recorder: oracle.NewRecorder(func() time.Duration { return time.Since(w.began) })}
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l
}

// begin starts the clients.
func (l *workload) begin() {
	for i, run := range []func(*rand.Rand, int, *client.Client){l.register, l.register, l.read, l.element, l.element, l.local, l.read} {
		rng := rand.New(rand.NewPCG(l.world.seed, uint64(200+i)))
		addresses := l.world.addresses()
		rng.Shuffle(len(addresses), func(a, b int) { addresses[a], addresses[b] = addresses[b], addresses[a] })
		c := l.world.clientAt(fmt.Sprintf("10.0.2.%d", i+1), 4*time.Second, addresses...)
		l.running.Go(func() { run(rng, i, c) })
	}
	l.running.Go(func() { l.transfer(rand.New(rand.NewPCG(l.world.seed, 300))) })
	l.redis = redisload.Start(redisload.Options{
		Recorder: l.recorder, Seed: l.world.seed, Clients: 4, Spaces: 2, Pace: l.pace, Patience: 5 * time.Second, Dial: l.world.dialRedis,
	})
}

// end stops the clients; operations under way are given up and stay of unknown outcome.
func (l *workload) end() {
	l.stop()
	l.running.Wait()
	if l.redis != nil {
		l.redis.Stop()
	}
}

// dialRedis connects a Redis client to some machine that is not down.
func (w *world) dialRedis(ctx context.Context, r *rand.Rand) (net.Conn, string, error) {
	m := w.machines[r.IntN(len(w.machines))]
	v := view{network: w.network, host: fmt.Sprintf("10.0.3.%d", 1+r.IntN(200)), dead: new(atomic.Bool)}
	conn, err := v.Dial(ctx, m.config.Listen.Redis)
	return conn, string(m.id), err
}

func (l *workload) think(rng *rand.Rand) bool {
	t := time.NewTimer(l.pace/4 + time.Duration(rng.Int64N(int64(l.pace*3/2))))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// wait is how long a node looks for a primary before it says that nothing was done.
const wait = 1500 * time.Millisecond

// outcome tells what a client knows after err. Only what a node said for sure counts as failed.
func outcome(err error) oracle.Outcome {
	if err == nil {
		return oracle.OK
	}
	switch client.CodeOf(err) {
	case client.CodeNotPrimary, client.CodeNoPrimary, client.CodeNoQuorum, client.CodeNoSync, client.CodeUnavailable, client.CodeStorageFull,
		client.CodeInvalid, client.CodePrecondition, client.CodeStale, client.CodeNotFound, client.CodeTooLarge, client.CodeBusy:
		return oracle.Failed
	}
	return oracle.Unknown
}

// put writes a record and takes it down.
func (l *workload) put(c *client.Client, who int, file, key, value string) {
	o := l.recorder.Begin(oracle.Operation{Client: who, Kind: oracle.Write, Key: file + "/" + key, Value: value})
	r, err := c.Put(l.ctx, file, []byte(key), []byte(value), client.WriteOptions{Wait: wait})
	l.recorder.End(o, outcome(err), func(o *oracle.Operation) {
		o.Position = r.Position
		var e *client.Error
		if errors.As(err, &e) {
			o.Position = e.Position
		}
		if err != nil {
			o.Error = err.Error()
		}
	})
}

// get reads a record and takes it down; local: from whichever node c asks first.
func (l *workload) get(c *client.Client, who int, file, key string, local bool) *oracle.Operation {
	kind := oracle.Read
	if local {
		kind = oracle.Local
	}
	o := l.recorder.Begin(oracle.Operation{Client: who, Kind: kind, Key: file + "/" + key})
	r, err := c.Get(l.ctx, file, []byte(key), client.ReadOptions{Wait: wait, Local: local})
	missing := errors.Is(err, client.ErrNotFound)
	result := outcome(err)
	if missing {
		result = oracle.OK
	}
	l.recorder.End(o, result, func(o *oracle.Operation) {
		o.Found, o.Value, o.Position, o.Copy, o.Applied = err == nil, string(r.Value), r.Position, r.Node, r.Applied
		if err != nil {
			o.Error = err.Error()
		}
	})
	return o
}

// register writes and reads a few keys that all clients share.
func (l *workload) register(rng *rand.Rand, who int, c *client.Client) {
	for i := 0; l.think(rng); i++ {
		key := fmt.Sprint("r", rng.IntN(4))
		if rng.IntN(2) == 0 {
			l.put(c, who, registers, key, fmt.Sprintf("%d-%d", who, i))
		} else {
			l.get(c, who, registers, key, false)
		}
	}
}

// read only reads the registers: a client that writes, too, soon waits for a write where reads still get an answer.
func (l *workload) read(rng *rand.Rand, who int, c *client.Client) {
	for l.think(rng) {
		l.get(c, who, registers, fmt.Sprint("r", rng.IntN(4)), false)
	}
}

// element adds elements and looks for earlier ones.
func (l *workload) element(rng *rand.Rand, who int, c *client.Client) {
	for i := 0; l.think(rng); i++ {
		if i > 0 && rng.IntN(4) == 0 {
			l.get(c, who, elements, fmt.Sprintf("%d-%d", who, rng.IntN(i)), false)
			continue
		}
		key := fmt.Sprintf("%d-%d", who, i)
		l.put(c, who, elements, key, key)
	}
}

// local reads from single copies: elements, the bank, and a counter that it counts up itself.
func (l *workload) local(rng *rand.Rand, who int, c *client.Client) {
	for i := 1; l.think(rng); i++ {
		machines := l.world.data()
		m := machines[rng.IntN(len(machines))]
		switch rng.IntN(4) {
		case 0:
			l.put(c, who, counters, "n", strconv.Itoa(i))
		case 1:
			l.recordPosition(m, who)
		case 2:
			l.get(m.client, who, elements, fmt.Sprintf("%d-%d", 3+rng.IntN(2), rng.IntN(i+1)), true)
		default:
			l.view(m.client, string(m.id), rng.IntN(3) > 0)
		}
	}
}

// recordPosition looks where in the history a copy's record stands: at one copy, in one life, that never goes back. Its value
// may, when an earlier write of unknown outcome arrives late. A node that has no copy yet asks another one, so the answer
// says whose copy it was.
func (l *workload) recordPosition(m *machine, who int) {
	lives := map[string]*life{}
	for _, x := range l.world.machines {
		lives[string(x.id)] = x.current()
	}
	o := l.get(m.client, who, counters, "n", true)
	_, h, ok := strings.Cut(o.Position[strings.IndexByte(o.Position, '@')+1:], ".")
	n, err := strconv.ParseInt(h, 10, 64)
	before := lives[o.Copy]
	if !ok || err != nil || before == nil || before.machine.current() != before {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.samples = append(l.samples, oracle.Sample{Value: n, Who: fmt.Sprintf("the copy of %s.%d", o.Copy, before.number)})
}

// view adds up all accounts, as one list shows them.
func (l *workload) view(c *client.Client, who string, local bool) {
	page, err := c.List(l.ctx, accounts, client.ListOptions{Limit: 100, Local: local, Wait: wait})
	if err != nil || len(page.Records) == 0 { // nothing there yet
		return
	}
	b := oracle.Balance{Who: fmt.Sprintf("%s at %s (local %v)", who, page.Applied, local), Count: len(page.Records)}
	for _, r := range page.Records {
		n, _ := strconv.Atoi(string(r.Value))
		b.Total += n
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.balances = append(l.balances, b)
}

// transfer moves money between accounts, each time in one transaction that insists on what it has read. Transactions of
// several records have no route over HTTP, so this client lives in the primary's process and dies with it.
func (l *workload) transfer(rng *rand.Rand) {
	account := func(i int) []byte { return []byte(fmt.Sprint("account", i)) }
	founded := false
	for l.think(rng) {
		m := l.world.primary()
		if m == nil {
			continue
		}
		life, n := m.running()
		if n == nil || n.Replica(group) == nil {
			continue
		}
		rep := n.Replica(group)
		ctx, cancel := context.WithTimeout(l.ctx, time.Second)
		var tx replica.Transaction
		if !founded {
			for i := range accountCount {
				tx.Writes = append(tx.Writes, replica.Write{File: accounts, Key: account(i), Value: []byte(strconv.Itoa(balance))})
				tx.Conditions = append(tx.Conditions, replica.Condition{File: accounts, Key: account(i), Absent: true})
			}
		} else {
			a, b := rng.IntN(accountCount), rng.IntN(accountCount-1)
			if b >= a {
				b++
			}
			amount := rng.IntN(10)
			for _, x := range []struct{ i, add int }{{a, -amount}, {b, amount}} {
				image, _, err := rep.Read(ctx, accounts, account(x.i), false)
				if err != nil {
					break
				}
				have, _ := strconv.Atoi(string(image.Value))
				tx.Writes = append(tx.Writes, replica.Write{File: accounts, Key: account(x.i), Value: []byte(strconv.Itoa(have + x.add))})
				tx.Conditions = append(tx.Conditions, replica.Condition{File: accounts, Key: account(x.i), Position: image.Position})
			}
		}
		if founded && len(tx.Writes) < 2 {
			cancel()
			continue
		}
		_, err := rep.Write(ctx, tx)
		cancel()
		switch {
		case errors.Is(err, replica.ErrCondition) && !founded:
			founded = true // an earlier try was done after all
		case err == nil && !life.dead.Load():
			founded = true
			l.mu.Lock()
			l.moved++
			l.mu.Unlock()
		}
	}
}
