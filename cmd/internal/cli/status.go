package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

const (
	watchEvery = time.Second
	askTimeout = 10 * time.Second // for one answer that does not wait for anything
)

func newStatus(a *app) *cobra.Command {
	var watch bool
	var on target
	cmd := &cobra.Command{
		Use:   "status [GROUP]",
		Short: "Show nodes, roles, lag and what needs attention",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTarget(cmd.Context(), on, func(cl *client.Client) error {
				if watch {
					return a.watchStatus(cmd.Context(), cl, args)
				}
				return a.statusOnce(cmd.Context(), cl, args)
			})
		},
	}
	on.flag(cmd)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "repeat every second until Ctrl-C")
	return cmd
}

func (a *app) statusOnce(ctx context.Context, cl *client.Client, args []string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	v, text, err := fetchStatus(ctx, cl, args)
	if err != nil {
		return err
	}
	return a.show(v, text)
}

// fetchStatus gets the whole status or one group's, and how to print it.
func fetchStatus(ctx context.Context, cl *client.Client, args []string) (any, func(io.Writer), error) {
	if len(args) == 0 {
		st, err := cl.Status(ctx)
		return st, func(w io.Writer) { writeStatus(w, st) }, err
	}
	g, err := cl.Group(ctx, args[0])
	return g, func(w io.Writer) {
		writeAttention(w, groupConcerns(g))
		writeGroup(w, g)
	}, err
}

// watchStatus repeats the status. An answer that fails is shown in place of the status: watching goes on.
func (a *app) watchStatus(ctx context.Context, cl *client.Client, args []string) error {
	screen := isTerminal(a.out) && a.output != "json"
	for {
		var frame strings.Builder
		ask, cancel := context.WithTimeout(ctx, askTimeout)
		v, text, err := fetchStatus(ask, cl, args)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if screen {
			frame.WriteString("\x1b[H\x1b[2J") // home, clear
		}
		if a.output != "json" {
			fmt.Fprintf(&frame, "%s  (Ctrl-C ends)\n\n", time.Now().Format("15:04:05"))
		}
		switch {
		case err != nil:
			reportError(&frame, err, a.output == "json")
		default:
			sub := *a
			sub.out = &frame
			if err := sub.showLine(v, text); err != nil {
				return err
			}
		}
		if a.output != "json" && !screen {
			frame.WriteString("\n")
		}
		if _, err := io.WriteString(a.out, frame.String()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchEvery):
		}
	}
}

func writeStatus(w io.Writer, st client.Status) {
	var concerns []string
	if st.RaftLeader == "" {
		concerns = append(concerns, fmt.Sprintf("node %s knows no Raft leader: no role can change, and no lease is renewed, until a majority of the nodes runs and is connected", st.Node))
	}
	if p := st.Pause; p != nil {
		concerns = append(concerns, "automatic failover is paused: "+orderText(*p))
	}
	for _, n := range st.Nodes {
		if n.Maintenance != nil {
			concerns = append(concerns, fmt.Sprintf("node %s is in maintenance: %s", n.ID, orderText(*n.Maintenance)))
		}
		if n.Leaving {
			concerns = append(concerns, fmt.Sprintf("node %s is being stopped: it hands its roles over and leaves the in-sync sets", n.ID))
		}
		switch {
		case n.State != "alive" && n.State != "":
			concerns = append(concerns, nodeConcern(n))
		case n.Lease == "expired":
			concerns = append(concerns, fmt.Sprintf("node %s does not renew its lease", n.ID))
		}
	}
	concerns = append(concerns, buildConcerns(st)...)
	concerns = append(concerns, concernsOf(st.Groups)...)
	concerns = append(concerns, plannedConcerns(st.Planned, st.Nodes)...)
	concerns = append(concerns, rotConcerns(st.Node, st.Scrub)...)
	concerns = append(concerns, localConcerns(st.LocalFiles)...)
	leader := st.RaftLeader
	if leader == "" {
		leader = "none"
	}
	fmt.Fprintf(w, "Cluster %s: %s, Raft leader %s, as node %s sees it\n", st.Cluster, plural(len(st.Nodes), "node", "nodes"), leader, st.Node)
	writeAttention(w, concerns)
	fmt.Fprintln(w)
	t := newTable("NODE", "STATE", "LEASE", "KIND", "HTTP")
	for _, n := range st.Nodes {
		state := n.State
		if n.Maintenance != nil {
			state += ", maintenance"
		}
		if n.Leaving {
			state += ", leaving"
		}
		t.add(n.ID, state, n.Lease, n.Kind, n.HTTP)
	}
	t.write(w)
	writeScrub(w, st.Node, st.Scrub)
	writeLocal(w, st.LocalFiles)
	for _, g := range st.Groups {
		fmt.Fprintln(w)
		writeGroup(w, g)
	}
}

// nodeConcern says what is wrong with a node that is not alive.
func nodeConcern(n client.NodeStatus) string {
	seen := lastSeen(n.LastContact)
	switch n.State {
	case "suspect":
		return fmt.Sprintf("node %s is suspect%s: %s", n.ID, seen, n.Suspicion)
	case "left":
		return fmt.Sprintf("node %s has stopped, or its end was reported%s: start it again", n.ID, seen)
	case "unknown":
		return fmt.Sprintf("node %s was never heard of by the node that answered: is it running, and is its gossip address %s reachable over TCP and UDP?", n.ID, n.Gossip)
	}
	return fmt.Sprintf("node %s is %s%s: start it, or repair the network to it", n.ID, n.State, seen)
}

func lastSeen(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return ", last heard of " + humanDuration(time.Since(t).Truncate(time.Second)) + " ago"
}

func writeAttention(w io.Writer, concerns []string) {
	if len(concerns) == 0 {
		fmt.Fprintln(w, "All is well.")
		return
	}
	for _, c := range concerns {
		writeProse(w, 2, "ATTENTION: "+c)
	}
}

// shortRunway is how soon a journal has to be full to be a concern.
const shortRunway = time.Hour

// concernsOf lists what there is to know of all groups. What is the same in several groups, such as that a node is gone, is said once.
func concernsOf(groups []client.GroupStatus) (all []string) {
	var texts []string
	names := map[string][]string{}
	for _, g := range groups {
		for _, c := range groupConcerns(g) {
			text := strings.TrimPrefix(c, "group "+g.Name+": ")
			if names[text] == nil {
				texts = append(texts, text)
			}
			names[text] = append(names[text], g.Name)
		}
	}
	for _, text := range texts {
		who := "group "
		if len(names[text]) > 1 {
			who = "groups "
		}
		all = append(all, who+strings.Join(names[text], ", ")+": "+text)
	}
	return all
}

// groupConcerns lists what an operator should know of before anything else.
func groupConcerns(g client.GroupStatus) (all []string) {
	add := func(format string, args ...any) {
		all = append(all, "group "+g.Name+": "+fmt.Sprintf(format, args...))
	}
	switch {
	case g.Phase == "fenced":
		add("a failover runs, a new primary is being chosen")
	case g.Phase == "promoted":
		add("%s is taking over", g.Primary)
	case g.Primary == "":
		add("there is no primary")
	}
	if g.Closing {
		add("it is being deleted: its writes wait until %s has said whether it holds records", g.Primary)
	}
	wanted := g.Spec.Secondaries
	if g.Primary != "" && g.Spec.Delivery != "async" && len(g.InSync) < wanted {
		if len(g.InSync) == 0 {
			add("no in-sync secondary (%d wanted): losing %s now loses its role or its last writes", wanted, g.Primary)
		} else {
			add("%d of %s in sync", len(g.InSync), plural(wanted, "secondary", "secondaries"))
		}
	}
	for _, t := range g.Targets {
		switch t.State {
		case "none", "connecting":
			why := ""
			if t.Error != "" {
				why = ": " + t.Error
			}
			add("%s receives nothing%s", t.Node, why)
		}
	}
	for _, d := range g.Dropped {
		add("%s was dropped and needs priming: %s", d.Node, d.Reason)
	}
	switch {
	case g.Full != "":
		add("writes are refused: %s", g.Full)
	case g.Runway > 0 && g.Runway < shortRunway.Seconds():
		add("the journal of %s is full in %s at the present rate", g.Primary, longDuration(g.Runway))
	}
	switch g.Writes {
	case "alone":
		add("writes are acknowledged without an in-sync secondary")
	case "held", "refused":
		add("writes are %s until an in-sync secondary is back", g.Writes)
	}
	if o := g.Scheduled; o != nil && o.Schedule.Waits != "" {
		add("the scheduled switch-over %d to %s cannot begin: %s", o.ID, o.To, o.Schedule.Waits)
	}
	if g.Held > 0 && g.Operation == nil {
		add("%s held", plural(g.Held, "write is", "writes are"))
	}
	if a := g.Archive; a != nil && a.Failure != "" {
		add("the archive of the node that answered fails, %s not archived: %s", plural(a.Pending, "receiver is", "receivers are"), a.Failure)
	}
	switch {
	case g.Local.Priming != "":
		add("the copy on the node that answered cannot catch up by journal: %s", asCommands(g.Local.Priming))
	case g.Local.NeedsPriming:
		add("the copy on the node that answered cannot catch up by journal and needs a new copy of the data")
	}
	if g.Local.Error != "" {
		add("the copy on the node that answered has stopped: %s", g.Local.Error)
	}
	if g.Stale {
		add("the primary could not be asked, its numbers are missing or old")
	}
	return all
}

func writeGroup(w io.Writer, g client.GroupStatus) {
	primary := g.Primary
	if primary == "" {
		primary = "none"
	}
	inSync := strings.Join(g.InSync, ", ")
	if inSync == "" {
		inSync = "none"
	}
	fmt.Fprintf(w, "Group %s: primary %s, in sync %s, epoch %d, %s\n", g.Name, primary, inSync, g.Epoch, g.Phase)
	if len(g.Spec.Files) > 0 {
		fmt.Fprintf(w, "  %s\n", selectionText(g.Spec))
	}
	t := newTable("NODE", "ROLE", "STATE", ">RECEIVED", ">DURABLE", ">APPLIED", ">LAG", ">BEHIND")
	t.indent = "  "
	shown := map[string]bool{}
	if g.Primary != "" {
		shown[g.Primary] = true
		t.add(g.Primary, g.Roles[g.Primary], "", humanCount(g.Sequence), humanCount(g.Confirmed), humanCount(g.Applied))
	}
	targets := slices.Clone(g.Targets)
	slices.SortFunc(targets, func(x, y client.Target) int { return strings.Compare(x.Node, y.Node) })
	for _, x := range targets {
		shown[x.Node] = true
		lag, behind := "none", "0 s"
		if x.LagEntries > 0 || x.LagBytes > 0 {
			lag = fmt.Sprintf("%s, %s", plural(int(x.LagEntries), "entry", "entries"), humanBytes(int64(x.LagBytes)))
		}
		if x.LagSeconds > 0 {
			behind = humanSeconds(x.LagSeconds)
		}
		if x.State == "none" || x.State == "connecting" { // nothing is heard of it: its numbers are the last ones known
			lag, behind = "last known", "?"
		}
		state := x.State
		if x.FedBy != "" {
			state += " by " + x.FedBy
			behind = "?" // its feeder knows
		}
		applied := humanCount(x.Applied)
		if x.FedBy != "" && x.Applied == 0 {
			applied, lag = "?", "?"
		}
		t.add(x.Node, g.Roles[x.Node], state, humanCount(x.Received), humanCount(x.Durable), applied, lag, behind)
	}
	for _, n := range sortedKeys(g.Roles) {
		if !shown[n] {
			t.add(n, g.Roles[n])
		}
	}
	t.write(w)
	if g.Position != "" {
		fmt.Fprintf(w, "  position %s; deposited %s, confirmed %s, committed %s\n", g.Position, humanCount(g.Sequence), humanCount(g.Confirmed), humanCount(g.Committed))
	}
	if r := g.Resync; r != nil && r.Phase != client.ResyncInSync {
		fmt.Fprintf(w, "  resync of %s: %s\n", r.Node, resyncText(*r))
	}
	if o := g.Operation; o != nil {
		fmt.Fprintf(w, "  %s\n", operationLine(*o))
	}
	if o := g.Scheduled; o != nil {
		fmt.Fprintf(w, "  %s\n", operationLine(*o))
	}
	if g.Held > 0 {
		fmt.Fprintf(w, "  %s held\n", plural(g.Held, "write is", "writes are"))
	}
	writeKept(w, g)
}

// resyncText says how far a resynchronization is, on one line.
func resyncText(r client.Resync) string {
	s := fmt.Sprintf("%s %.0f %%", r.Phase, r.Percent)
	if r.At != "" || r.To != "" {
		s += fmt.Sprintf(", at %s of %s", orNone(r.At), orNone(r.To))
	}
	if r.Rate > 0 {
		s += fmt.Sprintf(", %s entries/s", humanCount(int(r.Rate)))
	}
	if r.ETA > 0 {
		s += ", " + humanSeconds(r.ETA) + " left"
	}
	return s
}

func orNone(s string) string {
	if s == "" {
		return "the beginning"
	}
	return s
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
