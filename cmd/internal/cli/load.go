package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/understudy-ha/understudy/client"
)

const (
	loadTries   = 8  // a load writes the same content again, so repeating a write of unknown outcome is safe
	shownErrors = 10 // of a load; the rest is counted
)

func newLoad(a *app) *cobra.Command {
	var (
		file     string
		parallel int
	)
	cmd := &cobra.Command{
		Use:   "load FILE|DIR",
		Short: "Write every file below a directory as a record: path is the key",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if parallel < 1 || parallel > 256 {
				return usagef("--parallel %d: want 1 to 256", parallel)
			}
			files, err := collectFiles(args[0])
			if err != nil {
				return &exitError{exitPrecondition, err}
			}
			return a.withClient(func(cl *client.Client) error {
				r, err := loader{client: cl, file: file, parallel: parallel, progress: a.err}.load(cmd.Context(), files)
				if serr := a.show(r, func(w io.Writer) { r.write(w) }); err == nil {
					err = serr
				}
				if err == nil && r.Failed > 0 {
					err = exitWith(exitIncomplete, "%s could not be loaded; run the same command again", plural(r.Failed, "file", "files"))
				}
				return err
			})
		},
	}
	cmd.Flags().StringVar(&file, "file", "default", "file that gets the records")
	cmd.Flags().IntVar(&parallel, "parallel", 16, "writes at the same time")
	return cmd
}

// sourceFile is a file on this machine that becomes a record.
type sourceFile struct {
	path string // on this machine
	key  string // path below the directory that was given, with slashes
	size int64
}

// collectFiles lists the regular files below root, or root itself.
func collectFiles(root string) ([]sourceFile, error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []sourceFile{{path: root, key: filepath.Base(root), size: info.Size()}}, nil
	}
	var all []sourceFile
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		key, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		all = append(all, sourceFile{path: path, key: filepath.ToSlash(key), size: info.Size()})
		return nil
	})
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("there is no file below %s", root)
	}
	return all, err
}

// loader writes files as records of one file.
type loader struct {
	client   *client.Client
	file     string
	parallel int
	progress io.Writer // a bar is drawn when it is a terminal
}

// loadResult counts what a load did.
type loadResult struct {
	File    string   `json:"file"`
	Loaded  int      `json:"loaded"`
	Created int      `json:"created"`
	Failed  int      `json:"failed"`
	Bytes   int64    `json:"bytes"`
	Seconds float64  `json:"seconds"`
	Errors  []string `json:"errors,omitempty"`
}

func (r loadResult) write(w io.Writer) {
	took := time.Duration(r.Seconds * float64(time.Second))
	fmt.Fprintf(w, "%s loaded into %s (%s new), %s in %s: %s", plural(r.Loaded, "record", "records"), r.File,
		humanCount(r.Created), humanBytes(r.Bytes), humanDuration(took), humanRate(r.Loaded, took))
	if r.Seconds > 0 {
		fmt.Fprintf(w, ", %s/s", humanBytes(int64(float64(r.Bytes)/r.Seconds)))
	}
	fmt.Fprintln(w)
	if r.Failed > 0 {
		fmt.Fprintf(w, "%s failed:\n", plural(r.Failed, "file", "files"))
		for _, e := range r.Errors {
			fmt.Fprintln(w, "  "+e)
		}
		if r.Failed > len(r.Errors) {
			fmt.Fprintf(w, "  and %s more\n", humanCount(r.Failed-len(r.Errors)))
		}
	}
}

// load writes all files and returns when each was tried or ctx has ended, then with its error. Files that cannot be
// loaded are counted and do not stop the others.
func (l loader) load(ctx context.Context, files []sourceFile) (loadResult, error) {
	var (
		mu      sync.Mutex
		result  = loadResult{File: l.file}
		next    atomic.Int64
		wg      sync.WaitGroup
		began   = time.Now()
		advance = l.startBar(files)
	)
	for range min(l.parallel, len(files)) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(files) {
					return
				}
				created, n, err := l.loadOne(ctx, files[i])
				advance.add(files[i].size)
				mu.Lock()
				switch {
				case err != nil && ctx.Err() != nil: // interrupted, not failed
				case err != nil:
					result.Failed++
					if len(result.Errors) < shownErrors {
						result.Errors = append(result.Errors, files[i].key+": "+err.Error())
					}
				default:
					result.Loaded++
					result.Bytes += int64(n)
					if created {
						result.Created++
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	advance.end(ctx.Err() != nil)
	result.Seconds = time.Since(began).Seconds()
	return result, ctx.Err()
}

// loadOne writes one file. It repeats a write whose outcome is unknown: the content is the same.
func (l loader) loadOne(ctx context.Context, f sourceFile) (created bool, n int, err error) {
	value, err := os.ReadFile(f.path)
	switch {
	case err != nil:
		return false, 0, err
	case len(value) > client.MaxValue:
		return false, 0, fmt.Errorf("has %s, a record holds %s", humanBytes(int64(len(value))), humanBytes(client.MaxValue))
	case len(f.key) > client.MaxKey:
		return false, 0, fmt.Errorf("its path is longer than %s", humanBytes(client.MaxKey))
	}
	pause := 50 * time.Millisecond
	for try := 1; ; try++ {
		w, err := l.client.Put(ctx, l.file, []byte(f.key), value, client.WriteOptions{})
		if err == nil {
			return w.Created, len(value), nil
		}
		again := errors.Is(err, client.ErrUnknownOutcome) || errors.Is(err, client.ErrNoPrimary) || errors.Is(err, client.ErrUnavailable)
		if !again || try == loadTries {
			return false, 0, err
		}
		select {
		case <-ctx.Done():
			return false, 0, ctx.Err()
		case <-time.After(pause):
			pause *= 2
		}
	}
}

// loadBar is a progress bar, or nothing when there is no terminal.
type loadBar struct {
	all   *mpb.Progress
	bytes *mpb.Bar
}

func (l loader) startBar(files []sourceFile) loadBar {
	if !isTerminal(l.progress) {
		return loadBar{}
	}
	var total int64
	for _, f := range files {
		total += max(f.size, 1)
	}
	p := mpb.New(mpb.WithOutput(l.progress), mpb.WithWidth(40), mpb.WithRefreshRate(150*time.Millisecond))
	bar := p.AddBar(total,
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name("load "), decor.CountersKibiByte("% .1f of % .1f")),
		mpb.AppendDecorators(
			decor.Percentage(decor.WCSyncSpace),
			decor.OnComplete(decor.AverageETA(decor.ET_STYLE_GO, decor.WCSyncSpace), ""),
		))
	return loadBar{all: p, bytes: bar}
}

func (b loadBar) add(size int64) {
	if b.bytes != nil {
		b.bytes.IncrInt64(max(size, 1))
	}
}

func (b loadBar) end(aborted bool) {
	if b.bytes == nil {
		return
	}
	if aborted {
		b.bytes.Abort(true)
	}
	b.all.Wait()
}
