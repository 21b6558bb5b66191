package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestStoreCreateAndReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "raft")
	log := testLogger(t, "s")
	// What a power cut during creation leaves is not opened but made anew.
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, boltFile+".new"), []byte("half a page"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s, err := openStore(Directory(dir), time.Minute, func(error) {}, log)
		if err != nil {
			t.Fatal(err)
		}
		if unused, err := s.unused(); err != nil || !unused {
			t.Fatalf("unused %v %v", unused, err)
		}
		if _, err := openStore(Directory(dir), time.Minute, func(error) {}, log); err == nil || !strings.Contains(err.Error(), "another process") {
			t.Fatalf("opened twice: %v", err)
		}
		if err := s.log.StoreLog(&raft.Log{Index: 1, Term: 1}); err != nil {
			t.Fatal(err)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, boltFile+".new")); !os.IsNotExist(err) {
		t.Fatalf("temporary file left: %v", err)
	}
}

func TestStoreReportsHangingDisk(t *testing.T) {
	told := make(chan error, 1)
	s, err := openStore(Directory(t.TempDir()), 20*time.Millisecond, func(err error) { told <- err }, testLogger(t, "s"))
	if err != nil {
		t.Fatal(err)
	}
	done := s.watchdog.Enter("store logs")
	select {
	case err := <-told:
		if !strings.Contains(err.Error(), "store logs has not returned") {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nobody was told")
	}
	done()
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
}

// TestStoreReportsFailedWrite: a write that fails ends the node's life, whichever it is, since Raft does not survive all of them.
func TestStoreReportsFailedWrite(t *testing.T) {
	for name, write := range map[string]func(*store) error{
		"store logs":  func(s *store) error { return s.log.StoreLogs([]*raft.Log{{Index: 1, Term: 1}}) },
		"delete logs": func(s *store) error { return s.log.DeleteRange(1, 1) },
		"store vote":  func(s *store) error { return s.stable().Set([]byte("k"), []byte("v")) },
		"store term":  func(s *store) error { return s.stable().SetUint64([]byte("k"), 7) },
	} {
		var told error
		s, err := openStore(Directory(t.TempDir()), time.Minute, func(err error) { told = err }, testLogger(t, "s"))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.close(); err != nil { // the file is gone from under it
			t.Fatal(err)
		}
		if err := write(s); err == nil || told == nil || !strings.Contains(told.Error(), name) {
			t.Errorf("%s: %v, told %v", name, err, told)
		}
	}
}
