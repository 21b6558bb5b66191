package api

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
)

// headerHops counts how often nodes have passed a request on, and says behind a slash which protocol they speak. A build from before
// the protocol had a number understands the count alone: it refuses what is not a plain number, before anything is done.
const headerHops = "Understudy-Hops"

// checkHops reads the count of hops, and refuses the requests of nodes of another protocol.
func (a *API) checkHops(h http.Header) (int, error) {
	text := h.Get(headerHops)
	if text == "" {
		return 0, nil
	}
	count, number, _ := strings.Cut(text, "/")
	if number != a.protocol {
		theirs, _ := strconv.ParseUint(number, 10, 8) // "": none
		other := &ident.OtherProtocolError{Theirs: ident.Protocol(theirs), Ours: a.o.Protocol}
		return 0, &client.Error{Code: client.CodeNotPrimary, Detail: "the request was not done: " + other.Error(), Reason: "it was forwarded by a node of another build",
			Remedy: "run one build on all nodes"}
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 {
		return 0, invalid(fmt.Sprintf("header %s: %q is not a number", headerHops, shorten(text)), "leave it out: nodes set it")
	}
	return n, nil
}

// protocolOf is how a protocol stands in headerHops; "" for builds from before it.
func protocolOf(p ident.Protocol) string {
	if p == 0 {
		return ""
	}
	return strconv.Itoa(int(p))
}

func hopsOf(n int, protocol string) string {
	if protocol == "" {
		return strconv.Itoa(n)
	}
	return strconv.Itoa(n) + "/" + protocol
}

// Asks marks a request as one of a node of protocol p. A node of another one refuses it.
func Asks(h http.Header, p ident.Protocol) { h.Set(headerHops, hopsOf(0, protocolOf(p))) }

// tellProtocol tells a node that asks which protocol answers: a build from before it says nothing.
func (a *API) tellProtocol(w http.ResponseWriter, r *http.Request) {
	if a.protocol != "" && r.Header.Get(headerHops) != "" {
		w.Header().Set(headerHops, a.protocol)
	}
}

// older tells whether an answer comes from a build from before the protocol, which has refused the count of hops, so that the
// request was not done.
func (a *API) older(resp *http.Response) bool {
	return a.protocol != "" && resp.StatusCode == http.StatusBadRequest && resp.Header.Get(headerHops) == ""
}
