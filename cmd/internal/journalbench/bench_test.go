package journalbench

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// BenchmarkJournal reports every row with its ratio to the plain program: `go test -bench Journal -benchtime 1x`.
func BenchmarkJournal(b *testing.B) {
	for _, row := range Rows() {
		b.Run(row, func(b *testing.B) {
			for b.Loop() {
				r, err := Bench{Dir: b.TempDir(), Time: 2 * time.Second}.Run(b.Context(), row)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(r.Ours, r.Unit)
				if r.Raw > 0 {
					b.ReportMetric(r.Raw, "raw-"+r.Unit)
					b.ReportMetric(r.Ratio, "ratio")
				}
			}
		})
	}
}

// Every row can be measured, and its figures make sense. How good they are is not for a test to say.
func TestEveryRow(t *testing.T) {
	for _, row := range Rows() {
		r, err := Bench{Dir: t.TempDir(), Time: 20 * time.Millisecond}.Run(t.Context(), row)
		if err != nil || r.Ours <= 0 || r.What == "" || r.Unit == "" || r.Wanted == "" || (r.Raw > 0) != (r.Ratio > 0) {
			t.Errorf("%s: %+v, %v", row, r, err)
		}
	}
	if _, err := (Bench{}).Run(t.Context(), "x"); err == nil {
		t.Error("an unknown row was measured")
	}
}

// A journal of 1,000 receivers opens without reading them: with a generous bound, since machines differ.
func TestOpenOfManyReceivers(t *testing.T) {
	fs := vfs.NewMem()
	if err := Many(fs, "many", 1000); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	j, err := Bench{}.reopen(fs, "many")
	if err != nil {
		t.Fatal(err)
	}
	if took, n := time.Since(began), len(j.Receivers()); n != 1001 || took > 20*time.Second {
		t.Errorf("%d receivers in %s", n, took)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}
