package journal

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/understudy-ha/understudy/internal/ident"
)

// ClosedReceivers lists the receivers in the directory of a journal that is not open, ascending, those whose header is whole. It
// changes nothing. Last is not known.
func ClosedReceivers(o Options) ([]ReceiverInfo, error) {
	o.setDefaults()
	d := disk{fs: o.FS, dir: o.Dir, id: o.ID, cluster: o.Cluster}
	names, err := d.fs.List(d.dir)
	if err != nil && !isNotExist(err) {
		return nil, fmt.Errorf("list journal directory: %w", err)
	}
	var out []ReceiverInfo
	for _, name := range names {
		stem, ok := strings.CutSuffix(name, ".rcv")
		n, err := strconv.ParseUint(stem, 10, 32)
		if !ok || err != nil || fileName(ident.ReceiverNumber(n)) != name {
			continue
		}
		if r, err := d.header(ident.ReceiverNumber(n)); err == nil {
			out = append(out, r.info(false))
		}
	}
	slices.SortFunc(out, func(a, b ReceiverInfo) int { return int(a.Number) - int(b.Number) })
	return out, nil
}

// ClosedContent opens the file of a receiver of a journal that is not open. It may be rotten anywhere, and zeros may stand behind
// its bundles: whoever takes its bytes checks them. ErrNotHeld: there is no such file.
func ClosedContent(o Options, n ident.ReceiverNumber) (*Content, error) {
	o.setDefaults()
	file, err := o.FS.Open(o.FS.PathJoin(o.Dir, fileName(n)))
	if isNotExist(err) {
		err = ErrNotHeld
	}
	if err != nil {
		return nil, fmt.Errorf("open receiver %s of journal %s: %w", n, o.ID, err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("look at receiver %s of journal %s: %w", n, o.ID, err), file.Close())
	}
	return &Content{Info: ReceiverInfo{Number: n, Bytes: info.Size()}, size: info.Size(), file: file}, nil
}
