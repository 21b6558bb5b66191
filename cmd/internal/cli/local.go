package cli

import (
	"fmt"
	"io"

	"github.com/understudy-ha/understudy/client"
)

// localConcerns lists what an operator should know of the files that a node keeps for itself.
func localConcerns(l *client.LocalFiles) (all []string) {
	if l == nil {
		return nil
	}
	add := func(format string, args ...any) {
		all = append(all, fmt.Sprintf("local files of node %s: ", l.Node)+fmt.Sprintf(format, args...))
	}
	if !l.Writable {
		add("writes are refused: %s", recovering(l.Error))
	}
	if l.Full != "" {
		add("%s", l.Full)
	}
	if l.Runway > 0 && l.Runway < shortRunway.Seconds() {
		add("their journal is full in %s at the present rate", humanSeconds(l.Runway))
	}
	for _, h := range l.Hidden {
		which := "which does not have them"
		if h.Planned {
			which = "which is planned and will not have them"
		}
		add("%s of %s (such as %s) are hidden by group %s, %s: get, list or delete --group local at this node", plural(int(h.Records), "record", "records"), plural(int(h.Files), "file", "files"), h.First, h.Group, which)
	}
	return all
}

func recovering(why string) string {
	if why == "" {
		return "they are being recovered"
	}
	return why
}

// writeLocal describes them in a line.
func writeLocal(w io.Writer, l *client.LocalFiles) {
	if l == nil {
		return
	}
	fmt.Fprintf(w, "\nLocal files of node %s, on no other node:", l.Node)
	if l.Journal == nil {
		fmt.Fprintln(w, " none were written")
		return
	}
	fmt.Fprintf(w, " at %s, journal %s with %s in %s\n", l.Position, l.Journal.ID, humanBytes(l.Journal.Bytes), plural(l.Journal.Receivers, "receiver", "receivers"))
}
