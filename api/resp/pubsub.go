package resp

import (
	"net"
	"sync"
)

// outbox is how many messages a subscriber may lag behind; one that takes none is cut.
const outbox = 256

// pubsubCommands are the commands of subscribers. There is no PUBLISH: what is told are changes of roles.
func pubsubCommands() []command {
	const family = "pubsub"
	const f = pubsub | subscribed | noMulti
	return []command{
		{name: "subscribe", arity: -2, flags: f, family: family, since: "2.0.0", summary: "Listens for messages published to channels.", own: ownSubscribe(true, false)},
		{name: "psubscribe", arity: -2, flags: f, family: family, since: "2.0.0", summary: "Listens for messages published to channels that match one or more patterns.", own: ownSubscribe(true, true)},
		{name: "unsubscribe", arity: -1, flags: f, family: family, since: "2.0.0", summary: "Stops listening to messages posted to channels.", own: ownSubscribe(false, false)},
		{name: "punsubscribe", arity: -1, flags: f, family: family, since: "2.0.0", summary: "Stops listening to messages published to channels that match one or more patterns.", own: ownSubscribe(false, true)},
	}
}

// hub hands messages to subscribers. Locks are taken in the order session.write, hub.
type hub struct {
	mu  sync.Mutex
	all map[*session]struct{} // sessions with a subscription

}

// subscriber is the part of a session that gets messages.
type subscriber struct {
	// guarded by the hub
	channels, patterns []string // in the order of subscribing
	messages           chan reply

	done chan struct{} // closed when its goroutine has ended; nil when none was started
}

// publish hands a message to everybody who listens, and waits for nobody.
func (h *hub) publish(channel, message string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.all {
		for _, c := range s.subscriber.channels {
			if c == channel {
				s.deliver(push{text("message"), text(channel), text(message)})
			}
		}
		for _, p := range s.subscriber.patterns {
			if matches([]byte(p), []byte(channel)) {
				s.deliver(push{text("pmessage"), text(p), text(channel), text(message)})
			}
		}
	}
}

// deliver queues a message; a session that takes none is cut.
func (s *session) deliver(m reply) {
	select {
	case s.subscriber.messages <- m:
	default:
		_ = s.conn.Close()
	}
}

// forward writes messages until the session ends.
func (s *session) forward(messages <-chan reply) {
	defer close(s.subscriber.done)
	for m := range messages {
		s.write.Lock()
		s.write.out = m.render(s.write.out, s.identity.Load().proto)
		s.writeLocked()
		broken := s.write.broken
		s.write.Unlock()
		if broken != nil {
			_ = s.conn.Close() // wakes the session's goroutine
		}
	}
}

// join waits for the goroutine; the hub knows the session no more.
func (c *subscriber) join() {
	if c.done != nil {
		<-c.done
	}
}

// subscriptions counts what the session listens to.
func (s *session) subscriptions() int {
	s.srv.hub.mu.Lock()
	defer s.srv.hub.mu.Unlock()
	return len(s.subscriber.channels) + len(s.subscriber.patterns)
}

// unsubscribeAll ends all subscriptions, and the messages.
func (s *session) unsubscribeAll() {
	h := &s.srv.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	s.subscriber.channels, s.subscriber.patterns = nil, nil
	delete(h.all, s)
	if s.subscriber.messages != nil {
		close(s.subscriber.messages)
		s.subscriber.messages = nil
	}
}

// ownSubscribe answers once for each channel. The answers are put between messages that were published before and after.
func ownSubscribe(begin, pattern bool) func(*session, [][]byte) reply {
	return func(s *session, args [][]byte) reply {
		for _, a := range args[1:] {
			if len(a) > s.srv.o.Limits.Names {
				return failure("ERR the channel's name is too long")
			}
		}
		if begin && s.subscriptions()+len(args)-1 > s.srv.o.Limits.Channels {
			return failure("ERR too many channels")
		}
		if s.subscriber.done == nil && begin {
			s.subscriber.done = make(chan struct{})
			messages := make(chan reply, outbox)
			s.srv.hub.mu.Lock()
			s.subscriber.messages = messages
			s.srv.hub.mu.Unlock()
			go s.forward(messages)
		}
		s.write.Lock()
		defer s.write.Unlock()
		h := &s.srv.hub
		h.mu.Lock()
		defer h.mu.Unlock()
		list, word := &s.subscriber.channels, "unsubscribe"
		if begin {
			word = "subscribe"
		}
		if pattern {
			list, word = &s.subscriber.patterns, "p"+word
		}
		names := args[1:]
		if len(names) == 0 { // all of them
			for _, c := range *list {
				names = append(names, []byte(c))
			}
		}
		confirm := func(name reply) {
			n := len(s.subscriber.channels) + len(s.subscriber.patterns)
			s.write.out = push{text(word), name, integer(n)}.render(s.write.out, s.proto)
		}
		if len(names) == 0 {
			confirm(null{})
		}
		for _, name := range names {
			change(list, string(name), begin)
			confirm(bulk(name))
		}
		if h.all == nil {
			h.all = map[*session]struct{}{}
		}
		h.all[s] = struct{}{}
		if len(s.subscriber.channels)+len(s.subscriber.patterns) == 0 {
			delete(h.all, s)
		}
		return silence{}
	}
}

// change puts a name into a list, or takes it out.
func change(list *[]string, name string, in bool) {
	for i, c := range *list {
		if c == name {
			if !in {
				*list = append((*list)[:i:i], (*list)[i+1:]...)
			}
			return
		}
	}
	if in {
		*list = append(*list, name)
	}
}

// normal tells whether a session is a client's that neither listens nor relays.
func (s *session) normal() bool { return s.subscriptions() == 0 && !s.identity.Load().peer }

// switchMessage is what Sentinel says when another node became primary.
func switchMessage(name, from, to string) string {
	oldHost, oldPort := hostPort(from)
	newHost, newPort := hostPort(to)
	return name + " " + oldHost + " " + oldPort + " " + newHost + " " + newPort
}

// hostPort splits an address as clients want it: a host without brackets.
func hostPort(address string) (host, port string) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address, "0"
	}
	return host, port
}

// monitorMessage is what Sentinel says when a master is not watched any more.
func monitorMessage(name, address string) string {
	host, port := hostPort(address)
	return "master " + name + " " + host + " " + port
}
