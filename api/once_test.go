package api

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/client"
)

// What is to be done tells requests with idempotency keys apart; which node was asked, how long it may take and which connection it
// came over do not. Proves TR-3.
func TestRequestsAreToldApart(t *testing.T) {
	f := newFake()
	n := start(t, f, nil)
	digest := func(method, path, body string, headers ...string) string {
		t.Helper()
		resp := n.send(t, method, path, strings.NewReader(body), append([]string{client.HeaderIdempotencyKey, "key"}, headers...)...)
		closeBody(resp)
		asked := f.take()
		if resp.StatusCode >= 300 || len(asked) != 1 || !strings.Contains(asked[0], `once "key" `) {
			t.Fatalf("%s %s: %d, asked %q", method, path, resp.StatusCode, asked)
		}
		return asked[0][strings.LastIndex(asked[0], " ")+1:]
	}
	same := digest("PUT", "/v1/files/f/records/k", "v")
	for name, other := range map[string]string{
		"wait": digest("PUT", "/v1/files/f/records/k?wait=1s", "v"),
		"hops": digest("PUT", "/v1/files/f/records/k", "v", headerHops, "1", "User-Agent", "another", "Content-Type", "text/plain"),
	} {
		if other != same {
			t.Errorf("%s makes it another request", name)
		}
	}
	entry := `{"type":"A1","text":"x"}`
	seen := []string{same}
	for _, other := range []string{
		digest("PUT", "/v1/files/f/records/k", "w"), digest("PUT", "/v1/files/f/records/l", "v"), digest("PUT", "/v1/files/g/records/k", "v"),
		digest("DELETE", "/v1/files/f/records/k", ""), digest("PUT", "/v1/files/f/records/k", "v", "If-None-Match", "*"),
		digest("PUT", "/v1/files/f/records/k", "v", "If-Match", `"default@3.42"`), digest("PUT", "/v1/files/f/records/k", "v", "If-Match", "*"),
		digest("POST", "/v1/transactions", `{"changes":[{"file":"f","key":"k","value":"v"}]}`),
		digest("POST", "/v1/groups/default/journals/local/entries", entry), digest("POST", "/v1/groups/other/journals/local/entries", entry),
	} {
		if slices.Contains(seen, other) {
			t.Errorf("%s stands for two requests", other)
		}
		seen = append(seen, other)
	}
}

// An answer that was given before says so, a refusal too; keys that cannot be kept are refused.
func TestReplays(t *testing.T) {
	f := newFake()
	n := start(t, f, nil)
	for _, path := range []string{"PUT /v1/files/f/records/k", "POST /v1/transactions"} {
		method, path, _ := strings.Cut(path, " ")
		body := `{"changes":[{"file":"f","key":"k","value":"v"}]}`
		for key, want := range map[string]string{"again": "true", "first": ""} {
			resp := n.send(t, method, path, strings.NewReader(body), client.HeaderIdempotencyKey, key)
			closeBody(resp)
			if got := resp.Header.Get(client.HeaderReplayed); resp.StatusCode != http.StatusOK || got != want {
				t.Errorf("%s with key %s: %d, replayed %q", path, key, resp.StatusCode, got)
			}
		}
	}
	c := n.client(t)
	if w, err := c.Put(t.Context(), "f", []byte("k"), nil, client.WriteOptions{IdempotencyKey: "again"}); err != nil || !w.Replayed {
		t.Errorf("%+v %v", w, err)
	}
	f.err = &client.Error{Code: client.CodePrecondition, Replayed: true, Failed: &client.FailedCondition{In: "changes", Index: 2, File: "f", Key: client.MakeKey([]byte{0xff}), Exists: true, Position: "default@3.41"}}
	resp := n.send(t, "PUT", "/v1/files/f/records/k", nil, client.HeaderIdempotencyKey, "again")
	if p := problemOf(t, resp); p.Status != 412 || resp.Header.Get(client.HeaderReplayed) != "true" || fmt.Sprint(p.Failed) != fmt.Sprint(f.err.(*client.Error).Failed) {
		t.Errorf("%+v", p)
	}
	f.err = &client.Error{Code: client.CodeKeyReused}
	if _, err := c.Put(t.Context(), "f", []byte("k"), nil, client.WriteOptions{IdempotencyKey: "k"}); !errors.Is(err, client.ErrKeyReused) || client.OutcomeOf(err) != client.OutcomeNotDone {
		t.Errorf("%v", err)
	}
	f.err = nil
	f.take()
	for _, key := range []string{"", "ä", "a\tb", strings.Repeat("k", client.MaxIdempotencyKey+1)} {
		if p := problemOf(t, n.send(t, "PUT", "/v1/files/f/records/k", nil, client.HeaderIdempotencyKey, key)); p.Status != 400 || p.Remedy == "" {
			t.Errorf("key %q: %+v", key, p)
		}
	}
	if asked := f.take(); asked != nil {
		t.Errorf("asked %q", asked)
	}
}

// The headers If-Match and If-None-Match are conditions of a write. Proves CL-4.
func TestConditionalWrites(t *testing.T) {
	f := newFake()
	n := start(t, f, nil)
	for _, tc := range []struct{ method, header, value, want string }{
		{"PUT", "If-None-Match", "*", `put f "k" "" 5s absent`},
		{"PUT", "If-Match", "*", `put f "k" "" 5s exists`},
		{"PUT", "If-Match", `"default@3.42"`, `put f "k" "" 5s at default@3.42`},
		{"DELETE", "If-Match", "3.42", `delete f "k" at 3.42`},
		{"PUT", "If-Match", `"some etag"`, ""},
		{"PUT", "If-Match", `"0.0"`, ""},
		{"PUT", "If-Match", `"default@3.42", "default@3.43"`, ""},
		{"PUT", "If-None-Match", `"default@3.42"`, ""},
		{"DELETE", "If-None-Match", "*", ""},
	} {
		resp := n.send(t, tc.method, "/v1/files/f/records/k", nil, tc.header, tc.value)
		asked := f.take()
		if tc.want != "" {
			closeBody(resp)
			if !slices.Equal(asked, []string{tc.want}) {
				t.Errorf("%s %s: %s asked %q", tc.method, tc.header, tc.value, asked)
			}
			continue
		}
		if p := problemOf(t, resp); p.Status != 400 || p.Remedy == "" || asked != nil {
			t.Errorf("%s %s: %s is %+v, asked %q", tc.method, tc.header, tc.value, p, asked)
		}
	}
	c := n.client(t)
	for _, o := range []client.WriteOptions{{IfAbsent: true}, {IfExists: true}, {IfPosition: "default@3.42"}} {
		if _, err := c.Put(t.Context(), "f", []byte("k"), nil, o); err != nil {
			t.Error(err)
		}
	}
	if asked := f.take(); !slices.Equal(asked, []string{`put f "k" "" 5s absent`, `put f "k" "" 5s exists`, `put f "k" "" 5s at default@3.42`}) {
		t.Errorf("asked %q", asked)
	}
}

// What no group could do is refused before it is asked, with a word on where and what to do.
func TestTransactionsThatCannotBe(t *testing.T) {
	f := newFake()
	n := start(t, f, nil)
	many := strings.TrimSuffix(strings.Repeat(`{"file":"f","key":"k","delete":true},`, client.MaxTransactionChanges+1), ",")
	for body, says := range map[string]string{
		``:                                      "no changes",
		`{"changes":[]}`:                        "no changes",
		`{"changes":[{}],"x":1}`:                "x",
		`{"changes":[{"key":"k","value":"v"}]}`: "changes[0]: the file name is empty",
		`{"changes":[{"file":"\u0000idempotency","key":"k","value":"v"}]}`:                                                   "zero byte",
		`{"changes":[{"file":"f","value":"v"}]}`:                                                                             "the key is empty",
		`{"changes":[{"file":"f","key":"k"}]}`:                                                                               "neither value",
		`{"changes":[{"file":"f","key":"k","value":"v","value_base64":"AA=="}]}`:                                             "both value",
		`{"changes":[{"file":"f","key":"k","value":"v","delete":true}]}`:                                                     "deletion",
		`{"changes":[{"file":"f","key":"k","delete":true,"if_absent":true}]}`:                                                "absent",
		`{"changes":[{"file":"f","key":"k","value":"v","if_absent":true,"if_exists":true}]}`:                                 "2 conditions",
		`{"changes":[{"file":"f","key":"k","value":"v","if_position":"here"}]}`:                                              "here",
		`{"changes":[{"file":"f","key":"k","value":"v","ttl":"1s","expiry":"2026-11-22T15:04:05Z"}]}`:                        "both expiry and ttl",
		`{"changes":[{"file":"f","key":"k","value":"v","expiry":"9999-11-22T15:04:05Z"}]}`:                                   "9999",
		`{"changes":[{"file":"f","key":"k","value":"v"}],"conditions":[{"file":"f","key":"k"}]}`:                             "conditions[0]",
		`{"changes":[{"file":"f","key":"k","value":"v"}],"conditions":[{"file":"f","key":"","if_exists":true}]}`:             "conditions[0]: the key is empty",
		`{"changes":[{"file":"f","key":"k","value":"v"},{"file":"f","key":"` + strings.Repeat("k", 4097) + `","value":""}]}`: "changes[1]: the key has 4097 bytes",
		`{"changes":[` + many + `]}`: "4097 changes",
		`{"changes":[{"file":"f","key":"k","value":"` + strings.Repeat("v", client.MaxValue+1) + `"}]}`: "16777217 bytes",
	} {
		p := problemOf(t, n.send(t, "POST", "/v1/transactions", strings.NewReader(body)))
		if p.Status != 400 && p.Status != 413 || !strings.Contains(p.Detail, says) || p.Remedy == "" {
			t.Errorf("%.60s: %d %s (%s), want a word on %q", body, p.Status, p.Detail, p.Remedy, says)
		}
	}
	if p := problemOf(t, n.send(t, "GET", "/v1/files/%00idempotency/records", nil)); p.Status != 400 || !strings.Contains(p.Detail, "zero byte") {
		t.Errorf("%+v", p)
	}
	if asked := f.take(); asked != nil {
		t.Errorf("asked %q", asked)
	}
	resp := n.send(t, "POST", "/v1/transactions", strings.NewReader(`{"changes":[{"file":"f","key_base64":"/w==","value":"","if_absent":true},{"file":"f","key":"k","value_base64":"/g==","ttl":"1h","if_position":"default@3.42"},{"file":"g","key":"k","delete":true,"if_exists":true}]}`))
	closeBody(resp)
	if asked := f.take(); resp.StatusCode != 200 || !slices.Equal(asked, []string{`transact "" f/"\xff"="" absent f/"k"="\xfe" at default@3.42 g/"k"="" delete exists`}) {
		t.Errorf("%d, asked %q", resp.StatusCode, asked)
	}
}
