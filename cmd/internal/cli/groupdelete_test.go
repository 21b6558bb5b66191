package cli

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/understudy-ha/understudy/client"
)

// TestGroupDelete: what was done is said, and what keeps a group from being deleted, with an exit code for scripts. Proves IC-1.
func TestGroupDelete(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, dry := r.URL.Path[len("/v1/groups/"):], r.URL.Query().Get("dry_run") == "true"
		d := client.GroupDeletion{Group: name, Deleted: !dry, Epoch: 3, Blockers: []client.DeletionBlocker{}, Note: "the name is never used again"}
		switch {
		case r.Method != http.MethodDelete:
			problem(w, &client.Error{Code: client.CodeMethodNotAllowed})
			return
		case name == "full" && !dry:
			problem(w, &client.Error{Code: client.CodeExists, Detail: "group full cannot be deleted now; it holds key k", Remedy: "delete it"})
			return
		case name == "full":
			d.Blockers = append(d.Blockers, client.DeletionBlocker{Code: "records", Text: "group full holds key k"}, client.DeletionBlocker{Code: "group_in_use", Text: "consumer r holds it"})
		}
		_ = json.NewEncoder(w).Encode(d)
	}))
	t.Cleanup(s.Close)
	wantRun(t, s.URL, exitDone, []string{"Group empty was deleted: the name is never used again."}, "group", "delete", "empty")
	wantRun(t, s.URL, exitDone, []string{"Group empty can be deleted"}, "group", "delete", "empty", "--dry-run")
	wantRun(t, s.URL, exitPrecondition, []string{"- group full holds key k", "- consumer r holds it"}, "group", "delete", "full", "--dry-run")
	wantRun(t, s.URL, exitPrecondition, []string{"key k"}, "group", "delete", "full")
}
