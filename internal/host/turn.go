package host

// Turn is a lock for what is done over disk or network: who holds it may have to wait for either. A goroutine that waits for
// a Turn counts as blocked in testing/synctest, one that waits for a sync.Mutex does not, and virtual time would stand still.
// It is as fair as a channel.
type Turn chan struct{}

// NewTurn returns a Turn that nobody holds.
func NewTurn() Turn { return make(Turn, 1) }

// Lock waits until nobody else holds the turn.
func (t Turn) Lock() { t <- struct{}{} }

// Unlock gives the turn up.
func (t Turn) Unlock() { <-t }
