package api

import (
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/client"
)

// goNames are traces of the program's own language in a text for people.
var goNames = regexp.MustCompile(`\b(json|strconv|time|url|http|client|api|fsm|replica): |cannot unmarshal|Go struct|GroupSpec|client\.|\*[a-z]+\.|\[[a-z]+ [a-z]+|%!|<nil>|map\[|uint64|float64|int64`)

// Every wrong input is answered with what is wrong, by its name, and with what to do, in words for people.
func TestWrongInputIsExplained(t *testing.T) {
	n, browser := start(t, &fake{}, nil), httpClient(t)
	long := strings.Repeat("a", 300)
	for _, tc := range []struct {
		method, path, body string
		header             []string
		what, remedy       string
	}{
		{method: "PUT", path: "/v1/files/f/records/k?ttl=2", what: "ttl=2 has no unit", remedy: "ttl=2s"},
		{method: "PUT", path: "/v1/files/f/records/k?ttl=1.5", what: "ttl=1.5 has no unit", remedy: "ttl=1.5s"},
		{method: "PUT", path: "/v1/files/f/records/k?ttl=-2s", what: "ttl=-2s is not more than 0s", remedy: "30s"},
		{method: "PUT", path: "/v1/files/f/records/k?ttl=soon", what: "ttl=soon is not a duration", remedy: "30s"},
		{method: "PUT", path: "/v1/files/f/records/k?wait=5", what: "wait=5 has no unit", remedy: "wait=5s"},
		{method: "PUT", path: "/v1/files/f/records/k?ttl=1s&ttl=2s", what: "ttl", remedy: "once"},
		{method: "PUT", path: "/v1/files/f/records/k?expire=1s", what: `unknown parameter "expire"`, remedy: "ttl"},
		{method: "PUT", path: "/v1/files/f/records/k", header: []string{"If-Match", "zz"}, what: "If-Match", remedy: "default@3.42"},
		{method: "PUT", path: "/v1/files/f/records/k", header: []string{"If-None-Match", "zz"}, what: "If-None-Match", remedy: "*"},
		{method: "PUT", path: "/v1/files/f/records/k", header: []string{"Idempotency-Key", long}, what: "Idempotency-Key", remedy: "255"},
		{method: "PUT", path: "/v1/files/f/records/k", header: []string{client.HeaderExpiry, "soon"}, what: client.HeaderExpiry, remedy: "RFC 3339"},
		{method: "PUT", path: "/v1/files/" + long + "/records/k", what: "300 bytes", remedy: "shorter"},
		{method: "GET", path: "/v1/files/f/records?limit=abc", what: "limit=abc is not a whole number", remedy: "limit=10"},
		{method: "GET", path: "/v1/files/f/records?limit=-1", what: "limit=-1", remedy: "not negative"},
		{method: "GET", path: "/v1/files/f/records?limit=99999999", what: "limit=99999999 is too large", remedy: "at most"},
		{method: "GET", path: "/v1/files/f/records/k?local=maybe", what: "local=maybe is neither true nor false", remedy: "local=true"},
		{method: "GET", path: "/v1/files/f/records/k?local=true&max_lag=5", what: "max_lag=5 has no unit", remedy: "max_lag=5s"},
		{method: "GET", path: "/v1/receipts/abc", what: "abc", remedy: "@"},
		{method: "GET", path: "/v1/operations/abc", what: "abc", remedy: "number"},
		{method: "GET", path: "/v1/events?severity=loud", what: "severity=loud is not possible", remedy: "info, warning, error or critical"},
		{method: "GET", path: "/v1/groups/default/journals/local/entries?from=x", what: "from=x is not a whole number", remedy: "from=10"},
		{method: "GET", path: "/v1/groups/default/journals/local/entries?include=most", what: "include=most is not possible", remedy: "confirmed or all"},
		{method: "GET", path: "/v1/groups/default/journals/local/entries?since=10", what: "since=10 is not a time", remedy: "RFC 3339"},
		{method: "GET", path: "/v1/groups/default/journals/local/entries?code=Z", what: "code=Z", remedy: "R, C, J, U"},
		{method: "GET", path: "/v1/nix", what: "/v1/nix", remedy: "/v1/status"},
		{method: "DELETE", path: "/v1/status", what: "DELETE", remedy: "GET"},
		{method: "POST", path: "/v1/transactions", body: `{"changes":"x"}`, what: `field "changes" has to be a list, not text`, remedy: "changes"},
		{method: "POST", path: "/v1/transactions", body: `{"wrties":[]}`, what: `unknown field "wrties"`, remedy: "the fields are"},
		{method: "POST", path: "/v1/transactions", body: `[]`, what: "want an object, not a list", remedy: "fields"},
		{method: "POST", path: "/v1/transactions", body: `"x"`, what: "want an object, not text", remedy: "fields"},
		{method: "POST", path: "/v1/transactions", body: `{`, what: "it ends in the middle of a value", remedy: "fields"},
		{method: "POST", path: "/v1/transactions", body: `x`, what: "it is not JSON", remedy: "fields"},
		{method: "POST", path: "/v1/transactions", body: `{} x`, what: "more after the first value", remedy: "fields"},
		{method: "POST", path: "/v1/transactions", body: `null`, what: "null", remedy: "{}"},
		{method: "POST", path: "/v1/transactions", body: `{"changes":[{"file":1}]}`, what: `"changes.file" has to be text, not a number`, remedy: "fields"},
		{method: "POST", path: "/v1/transactions", body: `{"changes":[{"valu":"1"}]}`, what: `unknown field "valu"`, remedy: "changes (each: file, key, key_base64, value, "},
		{method: "POST", path: "/v1/transactions", what: "no changes", remedy: "changes"},
		{method: "POST", path: "/v1/groups/default/switchover", body: `{"to":5}`, what: `field "to" has to be text, not a number`, remedy: "max_pause"},
		{method: "POST", path: "/v1/groups/default/switchover", body: `{"max_pause":5}`, what: `field "max_pause" has to be a duration in quotes, such as "5s", not a number`, remedy: "max_pause"},
		{method: "POST", path: "/v1/groups/default/switchover", body: `{"max_pause":"5"}`, what: `"5" is not a duration`, remedy: "fields"},
		{method: "POST", path: "/v1/groups/default/switchover", body: `{"at":"x"}`, what: "x is not a time", remedy: "fields"},
		{method: "POST", path: "/v1/groups/default/switchover", body: `{"dry_run":"yes"}`, what: `field "dry_run" has to be true or false, not text`, remedy: "fields"},
		{method: "POST", path: "/v1/groups", body: `{"name":"x","secondaries":"two"}`, what: `field "secondaries" has to be a whole number, not text`, remedy: "fields"},
		{method: "POST", path: "/v1/groups", body: `{"name":"x","secondaries":1.5}`, what: `field "secondaries" has to be a whole number, not 1.5`, remedy: "fields"},
		{method: "POST", path: "/v1/groups", body: `{"name":"x","files":{}}`, what: `field "files" has to be a list, not an object`, remedy: "fields"},
		{method: "POST", path: "/v1/groups/default/journals/local/entries", body: `{"type":"AB","data":"##"}`, what: "base64", remedy: "fields"},
		{method: "GET", path: "/replica?lag=x", what: "lag=x", remedy: "2s"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tc.method, n.url(tc.path), strings.NewReader(tc.body))
		if err != nil {
			t.Fatal(err)
		}
		if len(tc.header) == 2 {
			req.Header.Set(tc.header[0], tc.header[1])
		}
		res, err := browser.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		var e client.Error
		if err != nil || json.Unmarshal(raw, &e) != nil {
			t.Fatalf("%s %s: %s, %v", tc.method, tc.path, raw, err)
		}
		name := tc.method + " " + tc.path + " " + tc.body
		if res.StatusCode/100 != 4 || e.Code == "" || !strings.Contains(e.Detail, tc.what) || !strings.Contains(e.Remedy, tc.remedy) {
			t.Errorf("%s: %d\n  %s\n  %s\nwant %q and %q", name, res.StatusCode, e.Detail, e.Remedy, tc.what, tc.remedy)
		}
		if e.Remedy == "" || goNames.MatchString(e.Detail+e.Reason+e.Remedy) {
			t.Errorf("%s: words of the program: %s %s %s", name, e.Detail, e.Reason, e.Remedy)
		}
	}
}

// Whatever a node answers has a remedy.
func TestEveryCodeHasARemedy(t *testing.T) {
	for _, c := range []client.Code{
		client.CodeInvalid, client.CodeNotFound, client.CodeUnknownGroup, client.CodeUnknownNode, client.CodeGone, client.CodeTooLarge, client.CodeExists, client.CodeBusy,
		client.CodePrecondition, client.CodeKeyReused, client.CodeNotPrimary, client.CodeNoPrimary, client.CodeNoQuorum, client.CodeNoSync, client.CodeUnavailable,
		client.CodeStale, client.CodeStorageFull, client.CodeJournalFull, client.CodeUnknownOutcome, client.CodeCorrupt, client.CodeUnsupported, client.CodeInternal,
	} {
		if remedy(c) == "" {
			t.Errorf("%s has no remedy", c)
		}
	}
}
