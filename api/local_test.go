package api

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// Proves HB-2: positions of local files, which name their node after a slash, go to the node as they are written, in a path too; whose
// they are is for the node to judge. A group's journal takes none of them.
func TestLocalPositionsReachTheNode(t *testing.T) {
	f := &fake{}
	n, browser := start(t, f, nil), httpClient(t)
	ask := func(path string) (int, string) {
		t.Helper()
		res, err := browser.Get(n.url(path))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
	for _, path := range []string{"/v1/receipts/local/b@1.5", "/v1/receipts/local%2Fb@1.5"} {
		if status, body := ask(path); status != http.StatusOK || !strings.Contains(body, `"local/b@1.5"`) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	for path, want := range map[string]int{
		"/v1/groups/local/journals/local/entries?position_from=local/c@1.5":   http.StatusOK,
		"/v1/groups/local/journals/local/entries?position_from=orders@1.5":    http.StatusBadRequest,
		"/v1/groups/default/journals/local/entries?position_from=local/c@1.5": http.StatusBadRequest,
		"/v1/groups/local/entries?after=local/c@1.5":                          http.StatusOK,
	} {
		if status, body := ask(path); status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.ContainsFunc(f.calls, func(s string) bool { return strings.HasPrefix(s, "receipt local/b@1.5") }) {
		t.Errorf("asked: %q", f.calls)
	}
}
