package client_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/understudy-ha/understudy/client"
)

// examplesAt names the variable with the addresses of a real cluster, separated by commas. With it the examples run against that one:
// cmd/internal/testcluster does so. Without it they run against a little node in memory.
const examplesAt = "UNDERSTUDY_EXAMPLES_AT"

// cluster returns the addresses of nodes for an example. The files that an example uses are its own.
func cluster() (addresses []string, stop func()) {
	if at := os.Getenv(examplesAt); at != "" {
		return strings.Split(at, ","), func() {}
	}
	n := &littleNode{records: map[string]littleRecord{}, answers: map[string][]byte{}, primary: "a"}
	s := httptest.NewServer(n)
	return []string{"127.0.0.1:1", s.URL}, s.Close // nobody listens at the first one
}

// littleNode keeps records as a node does, in memory, as far as the examples need it.
type littleNode struct {
	mu      sync.Mutex
	records map[string]littleRecord // by path
	answers map[string][]byte       // by idempotency key
	facts   []client.Entry
	primary string
}

type littleRecord struct {
	value []byte
	h     int
}

func at(h int) string { return fmt.Sprintf("default@1.%d", h) }

// path is where a record is found.
func path(file, key string) string { return "/v1/files/" + file + "/records/" + key }

func (n *littleNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	key := r.Header.Get(client.HeaderIdempotencyKey)
	if first, known := n.answers[key]; known && key != "" {
		w.Header().Set(client.HeaderReplayed, "true")
		_, _ = w.Write(first)
		return
	}
	switch {
	case r.URL.Path == "/v1/transactions":
		n.transact(w, body)
	case strings.HasSuffix(r.URL.Path, "/switchover"):
		n.switchover(w, body)
	case strings.HasSuffix(r.URL.Path, "/entries"):
		n.follow(w, r)
	case r.URL.Path == "/v1/groups/default":
		answer(w, 200, client.GroupStatus{Name: "default", Primary: n.primary})
	case strings.HasSuffix(r.URL.Path, "/records"):
		n.list(w, r)
	case r.Method == http.MethodPut:
		n.put(w, r, body, key)
	default:
		n.get(w, r)
	}
}

func answer(w http.ResponseWriter, status int, v any) {
	raw, _ := json.Marshal(v)
	if e, ok := v.(client.Error); ok {
		w.Header().Set("Content-Type", "application/problem+json")
		status = e.Code.Status()
	}
	w.WriteHeader(status)
	_, _ = w.Write(raw)
}

// change makes the record what value says; nil deletes it.
func (n *littleNode) change(file, key string, value []byte) int {
	e := client.Entry{Sequence: uint64(len(n.facts) + 1), Position: at(len(n.facts) + 1), Code: "R", Type: "PT", File: file, Key: client.MakeKey([]byte(key))}
	if value == nil {
		e.Type = "DL"
		delete(n.records, path(file, key))
	} else {
		n.records[path(file, key)] = littleRecord{value, len(n.facts) + 1}
		e.After = &client.Image{Position: e.Position, Value: value}
	}
	n.facts = append(n.facts, e)
	return len(n.facts)
}

func split(path string) (file, key string) {
	parts := strings.Split(path, "/")
	return parts[3], parts[5]
}

func (n *littleNode) put(w http.ResponseWriter, r *http.Request, body []byte, key string) {
	old, found := n.records[r.URL.Path]
	match := strings.Trim(r.Header.Get("If-Match"), `"`)
	if found && r.Header.Get("If-None-Match") == "*" || match != "" && (!found || match != at(old.h)) {
		answer(w, 0, client.Error{Code: client.CodePrecondition, Detail: "it was changed", Failed: &client.FailedCondition{Exists: found, Position: at(old.h)}})
		return
	}
	file, name := split(r.URL.Path)
	h := n.change(file, name, body)
	result := client.WriteResult{Position: at(h), Journal: "default/a", Sequence: uint64(h)}
	if key != "" { // the answer to the first try gets lost
		n.answers[key], _ = json.Marshal(result)
		conn, _, _ := w.(http.Hijacker).Hijack()
		_ = conn.Close()
		return
	}
	status := http.StatusCreated
	if found {
		status = http.StatusOK
	}
	answer(w, status, result)
}

func (n *littleNode) get(w http.ResponseWriter, r *http.Request) {
	record, found := n.records[r.URL.Path]
	if !found {
		file, key := split(r.URL.Path)
		answer(w, 0, client.Error{Code: client.CodeNotFound, Detail: "there is no record " + key + " in file " + file})
		return
	}
	w.Header().Set(client.HeaderPosition, at(record.h))
	w.Header().Set(client.HeaderApplied, at(len(n.facts)))
	w.Header().Set(client.HeaderAge, "0.1")
	w.Header().Set(client.HeaderNode, "b")
	_, _ = w.Write(record.value)
}

func (n *littleNode) list(w http.ResponseWriter, r *http.Request) {
	page := client.RecordPage{}
	from := strings.TrimSuffix(r.URL.Path, "/records") + "/records/" + r.URL.Query().Get("prefix")
	for _, p := range slices.Sorted(maps.Keys(n.records)) {
		if strings.HasPrefix(p, from) {
			_, key := split(p)
			page.Records = append(page.Records, client.Record{Key: client.MakeKey([]byte(key)), Value: n.records[p].value, Position: at(n.records[p].h)})
		}
	}
	answer(w, 200, page)
}

func (n *littleNode) transact(w http.ResponseWriter, body []byte) {
	var t client.Transaction
	if err := json.Unmarshal(body, &t); err != nil {
		answer(w, 0, client.Error{Code: client.CodeInvalid, Detail: err.Error()})
		return
	}
	for i, c := range t.Conditions {
		old, found := n.records[path(c.File, c.Text)]
		if c.IfAbsent && found || c.IfExists && !found || c.IfPosition != "" && c.IfPosition != at(old.h) {
			answer(w, 0, client.Error{Code: client.CodePrecondition, Detail: "it was changed", Failed: &client.FailedCondition{In: "conditions", Index: i, File: c.File, Key: c.Key, Exists: found, Position: at(old.h)}})
			return
		}
	}
	out := client.TransactionResult{Journal: "default/a"}
	for _, c := range t.Changes {
		_, found := n.records[path(c.File, c.Text)]
		out.Position = at(n.change(c.File, c.Text, c.Content()))
		out.Changes = append(out.Changes, client.ChangeResult{Found: found, Created: !found && !c.Delete, Position: out.Position})
	}
	answer(w, 200, out)
}

func (n *littleNode) switchover(w http.ResponseWriter, body []byte) {
	var q client.SwitchoverRequest
	_ = json.Unmarshal(body, &q)
	if q.DryRun {
		answer(w, 200, client.Readiness{Group: "default", From: n.primary, To: q.To, Ready: true, Loss: "none"})
		return
	}
	op := client.Operation{ID: 7, Kind: "switchover", Group: "default", From: n.primary, To: cmp.Or(q.To, "b"), State: client.OperationDone}
	n.primary = op.To
	answer(w, 200, op)
}

func (n *littleNode) follow(w http.ResponseWriter, r *http.Request) {
	after := 0
	_, _ = fmt.Sscanf(r.URL.Query().Get("after"), "default@1.%d", &after)
	for _, e := range n.facts[after:] {
		raw, _ := json.Marshal(e)
		_, _ = w.Write(append(raw, '\n'))
	}
}
