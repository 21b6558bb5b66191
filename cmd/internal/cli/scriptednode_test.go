package cli

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/understudy-ha/understudy/client"
)

// scripted is an answer of a scripted node. Exactly one field is set.
type scripted struct {
	JSON    json.RawMessage `json:"json"`
	File    string          `json:"file"` // its bytes; ranges are honoured
	Problem *client.Error   `json:"problem"`
}

// scriptedNode answers from a table of routes in a file: "METHOD /path" to what is answered.
func scriptedNode(ts *testscript.TestScript, routes string) {
	table := map[string]scripted{}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(routes)), &table))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := table[r.Method+" "+r.URL.Path]
		if !ok {
			a.Problem = &client.Error{Code: client.CodeUnknownPath, Detail: r.Method + " " + r.URL.Path}
		}
		switch {
		case a.Problem != nil:
			a.Problem.Status = a.Problem.Code.Status()
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(a.Problem.Status)
			_ = json.NewEncoder(w).Encode(a.Problem)
		case a.File != "":
			f, err := os.Open(ts.MkAbs(a.File))
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			defer f.Close()
			w.Header().Set("Content-Type", "application/octet-stream")
			http.ServeContent(w, r, "", time.Time{}, f)
		default:
			_, _ = w.Write(a.JSON)
		}
	}))
	ts.Defer(s.Close)
	ts.Setenv("UNDERSTUDY_ADDR", s.URL)
}
