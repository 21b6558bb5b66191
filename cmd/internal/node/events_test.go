package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/client"
)

func testEvents() *events { return newEvents(hclog.NewNullLogger(), "a", time.Now) }

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting: %s", what)
		}
	}
}

// onDisk returns the messages of the events in the event files.
func onDisk(t *testing.T, fs vfs.FS) (messages []string, bad int) {
	t.Helper()
	for _, name := range []string{eventFileBefore, eventFile} {
		raw, err := readFile(fs, "data/events/"+name)
		if err != nil {
			continue
		}
		found, broken := parseEvents(raw)
		bad += broken
		for _, e := range found {
			messages = append(messages, e.Message)
		}
	}
	return messages, bad
}

// Proves TR-2: events are kept over the death of the process and a power cut that cuts a line short; ids ascend over lives.
func TestEventsSurviveTheirProcess(t *testing.T) {
	fs := vfs.NewCrashableMem()
	last, all := uint64(0), []string{}
	for life := range 5 {
		if err := fs.MkdirAll("data", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := syncDirectory(fs, ""); err != nil {
			t.Fatal(err)
		}
		e := testEvents()
		e.add(client.SeverityInfo, "", "EARLY", fmt.Sprintf("%d/early", life), nil) // before the directory is open
		w, err := e.keep(fs, "data/events")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%d/early", life))
		for i := range 20 {
			e.add(client.SeverityWarning, "orders", "SRSHADOWLOST", fmt.Sprintf("%d/%d", life, i), map[string]string{"peer": "b"})
			all = append(all, fmt.Sprintf("%d/%d", life, i))
		}
		await(t, "everything is on disk", func() bool {
			got, _ := onDisk(t, fs.CrashClone(vfs.CrashCloneCfg{}))
			return len(got) == len(all)
		})
		kept, _ := e.since(0)
		if len(kept) != len(all) {
			t.Fatalf("life %d: %d events, want %d", life, len(kept), len(all))
		}
		for i, ev := range kept {
			if ev.Message != all[i] || i > 0 && ev.ID <= kept[i-1].ID {
				t.Fatalf("life %d: event %d is %+v", life, i, ev)
			}
		}
		if first := kept[len(kept)-21].ID; first <= last {
			t.Fatalf("life %d begins with id %d, the one before ended with %d", life, first, last)
		}
		last = kept[len(kept)-1].ID
		crashed := fs.CrashClone(vfs.CrashCloneCfg{})
		if err := w.close(); err != nil {
			t.Fatal(err)
		}
		fs = crashed
		f, err := fs.OpenReadWrite("data/events/"+eventFile, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte(`{"id":99999,"ti`), info.Size()); err != nil { // what the crash cut short
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The event file is bounded: it is rotated, and the newest events stay.
func TestEventFileRotates(t *testing.T) {
	fs := vfs.NewMem()
	e := testEvents()
	w, err := e.keep(fs, "data/events")
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 1000)
	const n = 5000
	for i := range n {
		e.add(client.SeverityInfo, "orders", "K", fmt.Sprintf("%s %d", long, i), nil)
		if i%500 == 499 {
			await(t, "it is on disk", func() bool {
				got, _ := onDisk(t, fs)
				return len(got) > 0 && strings.HasSuffix(got[len(got)-1], fmt.Sprintf(" %d", i))
			})
		}
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, name := range []string{eventFileBefore, eventFile} {
		info, err := fs.Stat("data/events/" + name)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	got, bad := onDisk(t, fs)
	if total > 2*eventFileBytes || bad > 0 || len(got) < 500 || !strings.HasSuffix(got[len(got)-1], fmt.Sprintf(" %d", n-1)) {
		t.Fatalf("%d bytes, %d events, %d bad lines", total, len(got), bad)
	}
	again := testEvents()
	w, err = again.keep(fs, "data/events")
	if err != nil {
		t.Fatal(err)
	}
	if kept, _ := again.since(0); len(kept) != min(len(got), keptEvents) {
		t.Errorf("%d of %d events came back", len(kept), len(got))
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
}

// Adding an event waits for no disk: a hook, a reader and a role go on while the event file hangs.
func TestEventsDoNotWaitForTheDisk(t *testing.T) {
	gate := make(chan struct{})
	e := testEvents()
	w, err := e.keep(gatedFS{vfs.NewMem(), gate}, "data/events")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * keptEvents {
		e.add(client.SeverityInfo, "", "K", fmt.Sprint(i), nil)
	}
	got, err := e.after(t.Context(), 3*keptEvents-1, 0)
	if err != nil || len(got) != 1 || got[0].Message != fmt.Sprint(3*keptEvents-1) {
		t.Fatalf("%v, %v", got, err)
	}
	close(gate)
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
}

// gatedFS opens files for writing only when the gate is open.
type gatedFS struct {
	vfs.FS
	gate chan struct{}
}

func (f gatedFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	<-f.gate
	return f.FS.OpenReadWrite(name, c, o...)
}

// lines is a writer whose content can be read while it is written to.
type lines struct {
	mu  sync.Mutex
	all strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

func content(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(raw)
}

// Proves TR-2: a hook program gets each event it wants, in order, one at a time, on its standard input and in its environment,
// and those from before its node started not at all.
func TestHookGetsItsEvents(t *testing.T) {
	dir := t.TempDir()
	e := testEvents()
	e.add(client.SeverityInfo, "orders", "SRPRIMARY", "of before", nil)
	script := `read -r line; echo begin >> ` + dir + `/out; echo "$line" >> ` + dir + `/json; sleep 0.01
echo "$UNDERSTUDY_EVENT_KIND $UNDERSTUDY_EVENT_GROUP $UNDERSTUDY_EVENT_NODE $UNDERSTUDY_EVENT_ID $UNDERSTUDY_EVENT_SEVERITY $UNDERSTUDY_EVENT_FIELD_PEER $UNDERSTUDY_EVENT_MESSAGE" >> ` + dir + `/out`
	var log lines
	r := runHooks(e, Hooks{Events: []Hook{
		{Run: []string{"/bin/sh", "-c", script}, Groups: []string{"orders"}},
		{Run: []string{"/bin/sh", "-c", "cat >> " + dir + "/all"}, Kinds: []string{"*"}},
	}}, hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Info}))
	e.add(client.SeverityInfo, "orders", "SRPRIMARY", "it serves", nil)
	e.add(client.SeverityInfo, "orders", "PROMISED", "of no role", nil)
	e.add(client.SeverityInfo, "bills", "SRPRIMARY", "of another group", nil)
	e.add(client.SeverityWarning, "orders", "SRSHADOWLOST", "it is alone; $(echo never run)", map[string]string{"peer": "b\x00"})
	want := "begin\nSRPRIMARY orders a 2 info  it serves\nbegin\nSRSHADOWLOST orders a 5 warning b it is alone; $(echo never run)\n"
	await(t, "both have run", func() bool { return content(dir+"/out") == want && strings.Count(content(dir+"/all"), "\n") == 4 })
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	if got := content(dir + "/json"); !strings.Contains(got, `"kind":"SRSHADOWLOST"`) || !strings.Contains(got, `"fields":{"peer":`) || strings.Count(got, "\n") != 2 {
		t.Errorf("standard input was %s", got)
	}
	if n := strings.Count(log.String(), "hook has run"); n != 6 {
		t.Errorf("%d runs are logged: %s", n, log.String())
	}
}

// A hook that fails, floods its output or does not end is told in the log, and killed with its children; nothing waits for it.
func TestHookIsBounded(t *testing.T) {
	dir := t.TempDir()
	e := testEvents()
	var log lines
	r := runHooks(e, Hooks{Events: []Hook{
		{Run: []string{"/bin/sh", "-c", "sleep 600 & echo $! > " + dir + "/new; mv " + dir + "/new " + dir + "/child; wait"}, Timeout: 500 * time.Millisecond},
		{Run: []string{"/bin/sh", "-c", "yes | head -c 100000; exit 3"}},
		{Run: []string{filepath.Join(dir, "missing")}},
	}}, hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Info}))
	began := time.Now()
	for range 100 {
		e.add(client.SeverityInfo, "orders", "SRPRIMARY", "m", nil)
	}
	if took := time.Since(began); took > 20*time.Second { // their hooks take 50 s
		t.Fatalf("events waited for hooks: %s", took)
	}
	await(t, "all three are told", func() bool {
		s := log.String()
		return strings.Contains(s, "hook was killed: it did not end in time") && strings.Contains(s, "exit status 3") && strings.Contains(s, "no such file")
	})
	await(t, "a hook has told its child", func() bool { return content(dir+"/child") != "" }) // it is killed again and again, perhaps before
	pid := strings.TrimSpace(content(dir + "/child"))
	await(t, "the child of the killed hook is gone", func() bool {
		stat := content("/proc/" + pid + "/stat")
		return stat == "" || strings.Contains(stat, ") Z ")
	})
	closing := time.Now()
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(closing); took > hookLastTimeout+20*time.Second {
		t.Errorf("closing took %s", took)
	}
	for _, line := range strings.Split(log.String(), "\n") {
		if len(line) > 4*hookOutput {
			t.Fatalf("a line of %d bytes in the log", len(line))
		}
	}
}

// A hook that cannot keep up with the events loses the oldest, and says so.
func TestSlowHookLosesTheOldest(t *testing.T) {
	e := testEvents()
	var log lines
	block := filepath.Join(t.TempDir(), "go")
	r := runHooks(e, Hooks{Events: []Hook{{Run: []string{"/bin/sh", "-c", "while [ ! -e " + block + " ]; do sleep 0.01; done"}}}},
		hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Info}))
	e.add(client.SeverityInfo, "orders", "SRPRIMARY", "first", nil)
	for range 2 * keptEvents {
		e.add(client.SeverityInfo, "orders", "OTHER", "m", nil)
	}
	if err := os.WriteFile(block, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, "the loss is told", func() bool { return strings.Contains(log.String(), "events were left out") })
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
}

func TestHooksAreChecked(t *testing.T) {
	ok := Hook{Run: []string{"/bin/true"}}
	for want, h := range map[string]Hooks{
		"":                        {Events: []Hook{ok, {Run: []string{"/bin/true"}, Timeout: time.Minute, Kinds: []string{"*"}}}},
		"hooks.events[1].run":     {Events: []Hook{ok, {}}},
		"whole path":              {Events: []Hook{{Run: []string{"true"}}}},
		"hooks.events[0].timeout": {Events: []Hook{{Run: []string{"/bin/true"}, Timeout: time.Hour}}},
		"at most 8":               {Events: []Hook{ok, ok, ok, ok, ok, ok, ok, ok, ok}},
	} {
		got := fmt.Sprint(h.check())
		if want == "" && got != "[]" || !strings.Contains(got, want) {
			t.Errorf("%q: %s", want, got)
		}
	}
}

// Waiting for events ends with its context.
func TestWaitingForEventsEnds(t *testing.T) {
	e := testEvents()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.after(ctx, 0, time.Minute); err == nil {
		t.Error("no error")
	}
}

// An event that was told does not change: whoever told it may go on with its fields for the next one.
func TestEventsKeepTheirFields(t *testing.T) {
	e := testEvents()
	fields := map[string]string{"journal": "default/a"}
	e.add(client.SeverityWarning, "default", "ROT_FOUND", "found", fields)
	fields["error"] = "not repaired"
	e.add(client.SeverityError, "default", "ROT_STAYS", "stays", fields)
	if first, second := e.kept[0].Fields, e.kept[1].Fields; len(first) != 1 || len(second) != 2 {
		t.Errorf("%v, then %v", first, second)
	}
}
