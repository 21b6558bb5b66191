// Package fakestore serves an object storage with the interface of S3, in memory and on loopback, which tests can break. It is in
// no program.
package fakestore

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// Fault is what a storage does wrong.
type Fault int

const (
	Well      Fault = iota
	Refused         // nobody listens
	Erroring        // every request is answered with 500
	ReadsFail       // those that read an object are answered with 500
	Cut             // answers with an object break off in the middle
	Altered         // one byte of every object that is read is another one
)

const bucket = "receivers"

// Store is a running storage with one empty bucket.
type Store struct {
	t       testing.TB
	address string
	handler http.Handler

	mu       sync.Mutex
	server   *httptest.Server // nil: nobody listens
	fault    Fault
	requests int
}

// Start runs a storage until the test ends. It sets the environment that the driver reads its credentials from.
func Start(t testing.TB) *Store {
	t.Helper()
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "not-a-secret", "AWS_SESSION_TOKEN": "", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_PROFILE": "", "NO_PROXY": "127.0.0.1",
	} {
		t.Setenv(name, value)
	}
	backend := s3mem.New()
	if err := backend.CreateBucket(bucket); err != nil {
		t.Fatal(err)
	}
	s := &Store{t: t}
	s.handler = gofakes3.New(backend, gofakes3.WithTimeSkewLimit(0)).Server()
	s.listen("127.0.0.1:0")
	t.Cleanup(func() { s.Break(Refused) })
	return s
}

// URL is the address of the storage as an archive takes it.
func (s *Store) URL(prefix string) string {
	return fmt.Sprintf("s3://%s/%s?region=eu-central-1&endpoint=http://%s&use_path_style=true", bucket, prefix, s.address)
}

// Requests counts those that came.
func (s *Store) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// Break makes the storage fail from now on; with Well it works again, and has what it had.
func (s *Store) Break(f Fault) {
	s.mu.Lock()
	s.fault = f
	server := s.server
	if f == Refused {
		s.server = nil
	}
	s.mu.Unlock()
	switch {
	case f == Refused && server != nil:
		server.CloseClientConnections()
		server.Close()
	case f != Refused && server == nil:
		s.listen(s.address)
	}
}

func (s *Store) listen(address string) {
	l, err := net.Listen("tcp", address)
	for end := time.Now().Add(time.Minute); err != nil && time.Now().Before(end); { // a connection out of here may have taken the port meanwhile
		time.Sleep(50 * time.Millisecond)
		l, err = net.Listen("tcp", address)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: s}}
	server.Start()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server, s.address = server, l.Addr().String()
}

// ServeHTTP answers as the storage, or breaks what it answers.
func (s *Store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests++
	fault := s.fault
	s.mu.Unlock()
	reads := r.Method == http.MethodGet && strings.Count(strings.Trim(r.URL.Path, "/"), "/") > 0 // an object, not a list
	switch {
	case fault == Erroring || fault == ReadsFail && reads:
		http.Error(w, "<Error><Code>InternalError</Code><Message>the storage is broken</Message></Error>", http.StatusInternalServerError)
		return
	case !reads || fault == Well:
		s.handler.ServeHTTP(w, r)
		return
	}
	whole := httptest.NewRecorder()
	s.handler.ServeHTTP(whole, r)
	body := bytes.Clone(whole.Body.Bytes())
	for name, values := range whole.Header() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(whole.Code)
	if whole.Code >= http.StatusMultipleChoices || len(body) == 0 {
		_, _ = w.Write(body) // the client may be gone
		return
	}
	if fault == Altered {
		body[len(body)/2] ^= 0x10
		_, _ = w.Write(body)
		return
	}
	_, _ = w.Write(body[:len(body)/2])
	panic(http.ErrAbortHandler) // closes the connection before all of it was sent
}
