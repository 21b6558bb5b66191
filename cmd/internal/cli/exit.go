package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strings"

	"github.com/understudy-ha/understudy/client"
)

// Exit codes, part of the interface: scripts depend on them.
const (
	exitDone         = 0
	exitFailure      = 1  // anything that has no code of its own
	exitUsage        = 2  // the command line or the configuration is wrong; nothing was tried
	exitPrecondition = 12 // a precondition failed and nothing was changed
	exitRolledBack   = 18 // it failed and was rolled back
	exitIncomplete   = 22 // it is done but a follow-up is incomplete
	exitGaveUp       = 74 // a node gave up: its disk hangs, or something it cannot do without has failed
	exitRunning      = 75 // it is still running, or whether it was done is not decided yet
)

// exitError is an error with an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func exitWith(code int, format string, args ...any) error {
	return &exitError{code: code, err: fmt.Errorf(format, args...)}
}

func usagef(format string, args ...any) error { return exitWith(exitUsage, format, args...) }

// exitCode maps an error to the exit code that scripts see.
func exitCode(err error) int {
	var own *exitError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &own):
		return own.code
	}
	switch client.CodeOf(err) {
	case client.CodePrecondition, client.CodeBusy, client.CodeExists, client.CodeUnknownGroup, client.CodeUnknownNode,
		client.CodeNotPrimary, client.CodeNoPrimary, client.CodeNoQuorum, client.CodeNoSync, client.CodeUnavailable,
		client.CodeStale, client.CodeStorageFull, client.CodeJournalFull:
		return exitPrecondition
	case client.CodeInvalid, client.CodeTooLarge, client.CodeUnsupported:
		return exitUsage
	case client.CodeUnknownOutcome:
		return exitRunning
	}
	return exitFailure
}

// reportError writes err for people, or as JSON when the command's output is JSON.
func reportError(w io.Writer, err error, asJSON bool) {
	var ce *client.Error
	if asJSON {
		answer := struct {
			Error   string        `json:"error"`
			Exit    int           `json:"exit"`
			Problem *client.Error `json:"problem,omitempty"`
		}{Error: err.Error(), Exit: exitCode(err)}
		if errors.As(err, &ce) {
			answer.Problem = ce
		}
		raw, _ := json.MarshalIndent(answer, "", "  ") // strings and numbers always encode
		fmt.Fprintf(w, "%s\n", raw)
		return
	}
	if direct, ok := err.(*client.Error); ok { // unwrapped: its parts go on lines of their own
		text := direct.Detail
		if text == "" {
			text = direct.Code.Title()
		}
		writeProse(w, 2, "understudy: "+text)
		pairs{{"code:", string(direct.Code)}, {"reason:", direct.Reason}, {"remedy:", asCommands(direct.Remedy)}, {"position:", direct.Position}}.write(w, "  ")
		return
	}
	writeProse(w, 2, "understudy: "+err.Error())
}

// notice tells in passing what is no result and no end: a line for people, or an object on a line of its own when the command's
// output is JSON.
func (a *app) notice(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if a.output != "json" {
		fmt.Fprintln(a.err, text)
		return
	}
	_ = json.NewEncoder(a.err).Encode(struct { // a text always encodes
		Notice string `json:"notice"`
	}{strings.TrimPrefix(text, "understudy: ")})
}

// Paths whose names are in the remedy.
var (
	cancelPath = regexp.MustCompile(`DELETE /v1/groups/([\w.-]+)/switchover`)
	switchPath = regexp.MustCompile(`POST /v1/groups/([\w.-]+)/switchover`)
	journalsOf = regexp.MustCompile(`GET /v1/groups/([a-z0-9_-]+)/journals\b`)
	listPath   = regexp.MustCompile(`GET /v1/files/([^/\s]+)/records`)
)

// asCommands turns a remedy that speaks HTTP, as nodes do, into one for somebody at a command line.
func asCommands(remedy string) string {
	remedy = journalsOf.ReplaceAllString(remedy, "`understudy journal list $1`")
	remedy = cancelPath.ReplaceAllString(remedy, "`understudy cancel $1`")
	remedy = switchPath.ReplaceAllString(remedy, "`understudy switchover $1`")
	remedy = listPath.ReplaceAllStringFunc(remedy, func(path string) string {
		file, err := url.PathUnescape(listPath.FindStringSubmatch(path)[1])
		if err != nil {
			return path
		}
		return "`understudy list " + shellQuote(file) + "`"
	})
	return strings.NewReplacer(
		"POST /v1/groups;", "`understudy group create`;",
		"(POST /v1/groups)", "(`understudy group create`)",
		"GET /v1/receipts/POSITION", "`understudy receipt POSITION`",
		"GET /v1/receipts/", "understudy receipt ",
		"GET /v1/groups/GROUP/journals shows", "`understudy journal list GROUP` shows",
		"POST …/journals/NODE/start, from first", "`understudy journal start GROUP --target NODE --from first`",
		"POST …/nodes/NODE/readmit", "`understudy group readmit GROUP NODE`",
		"GET /v1/groups/GROUP/why", "`understudy why GROUP`",
		"GET /v1/status show", "`understudy status` show",
		"docs/openapi.yaml says what each path takes", "`--help` says what the command takes",
		"GET /v1/groups lists", "`understudy group list` lists",
		"GET /v1/nodes lists", "`understudy status` lists",
		"GET /v1/operations", "`understudy operation show`",
		"GET /v1/status tells", "`understudy status` tells",
		"GET /v1/events", "`understudy events`",
		"(see …/resync)", "(see `understudy status`)",
		"a longer ?wait=", "a longer --wait",
		"read without local=true", "read without --local",
		"with ?group=local", "with --group local",
		"a larger max_lag", "a larger --max-lag",
		"with allow_data_loss and dry_run", "with --allow-data-loss --dry-run",
		"end the pause (DELETE /v1/pause)", "end it with `understudy resume`",
		"use switchover with to", "use `understudy switchover GROUP --to NODE`",
		`with "to"`, "with --to",
		`With "accept_unable":true`, "With --accept-unable",
		"leave `at` away", "leave --at away",
		"see docs/openapi.yaml for the fields", "see `--help`",
	).Replace(remedy)
}
