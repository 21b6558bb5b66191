package resp

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

const (
	namesKept  = time.Minute // since a scan asked for them last
	namesBytes = 64 << 20    // of memory, about; more names are listed anew for each step
	nameCost   = 40          // bytes that a name takes beside its own
)

// localNames remembers, in the order of a scan, the names of the files that are local to this node, from the first step of a scan on. Nothing but
// the steps here gives local files: a scan of which all steps are here began here, and its first step listed them anew. So what is
// remembered holds every file that was there the whole time. One that was emptied or given to a group since is looked up as any other.
type localNames struct {
	mu     sync.Mutex
	files  []file // nil: not remembered; nobody changes what is in it
	listed uint64 // how often they were listed
	drop   *time.Timer
}

// after returns the files from the code of a cursor on, about most of them, and the code of the first ones left out; 0: there are no more.
// all is how many there are in all.
func (l *localNames) after(ctx context.Context, cursor uint64, most int, list func(context.Context) ([]string, error)) (part []file, next uint64, all int, err error) {
	files := l.remembered()
	if cursor == 0 || files == nil {
		names, err := list(ctx)
		if err != nil {
			return nil, 0, 0, err
		}
		files = inOrder(names)
		l.remember(files)
	}
	begin, _, _ := splitCursor(cursor)
	part, next = cutWindow(files[firstOf(files, begin):], most)
	return part, next, len(files), nil
}

func (l *localNames) remembered() []file {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.drop != nil && l.files != nil {
		l.drop.Reset(namesKept)
	}
	return l.files
}

func (l *localNames) remember(files []file) {
	size := 0
	for _, f := range files {
		size += len(f.name) + nameCost
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listed++
	if l.files = files; size > namesBytes {
		l.files = nil
	}
	if l.drop == nil {
		l.drop = time.AfterFunc(namesKept, l.forget)
	}
	l.drop.Reset(namesKept)
}

// forget has the names listed anew.
func (l *localNames) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.files = nil
}

// inOrder puts names in the order of a scan.
func inOrder(names []string) []file {
	files := make([]file, 0, len(names))
	for _, n := range names {
		files = append(files, file{name: n, code: fileCode(n)})
	}
	slices.SortFunc(files, func(a, b file) int {
		if a.code != b.code {
			return cmp.Compare(a.code, b.code)
		}
		return cmp.Compare(a.name, b.name)
	})
	return files
}

// cutWindow leaves about most files. All of a code belong together; next is the code of the first ones left out, 0: none is.
func cutWindow(files []file, most int) (part []file, next uint64) {
	if len(files) <= most {
		return files, 0
	}
	if next = files[most].code; next == files[0].code {
		next++
	}
	if next > lastCode {
		return files, 0
	}
	return files[:firstOf(files, next)], next
}
