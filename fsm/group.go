package fsm

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
)

// Roles of a node in a group.
const (
	RolePrimary   = "primary"
	RoleSecondary = "secondary" // in the in-sync set: may be promoted automatically
	RoleStandby   = "standby"   // receives asynchronously or is catching up
	RoleWitness   = "witness"   // votes, has no data
	RoleDropped   = "dropped"   // nothing is kept for it any more: it has to be primed
)

// Role returns the role of a node in a group. In PhaseFenced nobody is primary.
func Role(g *Group, n *Node) string {
	switch {
	case n.Kind == KindWitness:
		return RoleWitness
	case g.Phase != PhaseFenced && g.Primary == n.ID:
		return RolePrimary
	case g.InSet(n.ID):
		return RoleSecondary
	case g.IsDropped(n.ID):
		return RoleDropped
	}
	return RoleStandby
}

// InSet tells whether a node is in the in-sync set.
func (g *Group) InSet(node ident.NodeID) bool { return slices.Contains(g.InSync, node) }

// Normalize returns the spec with defaults in place of zero values.
func (s GroupSpec) Normalize() GroupSpec {
	if len(s.Files) == 0 {
		s.Files = []string{"*"}
	}
	s.Files = slices.Clone(s.Files)
	s.Delivery = fallback(s.Delivery, DeliverySync)
	s.Secondaries = fallback(s.Secondaries, 1)
	s.OnNoSync = fallback(s.OnNoSync, NoSyncDegrade)
	s.AutoFailover = fallback(s.AutoFailover, FailoverLossless)
	s.Images = fallback(s.Images, ImagesAuto)
	s.ReceiverBytes = fallback(s.ReceiverBytes, 64<<20)
	s.KeepReceivers = fallback(s.KeepReceivers, -1) // all: an emptied node is rebuilt from them, until it can be primed from data
	if s.Compression == CompressionNone {
		s.Compression = "" // as below
	}
	if s.Switchback == SwitchbackManual {
		s.Switchback = "" // one form, so that equal specs are equal
	}
	if s.Switchback == SwitchbackAuto {
		s.SwitchbackAfter = fallback(s.SwitchbackAfter, time.Minute)
	}
	if s.JournalFull == JournalFullStall {
		s.JournalFull = ""
	}
	if s.Feeds = maps.Clone(s.Feeds); len(s.Feeds) == 0 {
		s.Feeds = nil
	}
	return s
}

func fallback[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// Choices of a GroupSpec, part of the format.
const (
	NoSyncDegrade    = "degrade" // go on alone, recorded and alarmed
	NoSyncHold       = "hold"    // writes wait for a shadow
	NoSyncRefuse     = "refuse"  // writes are refused
	FailoverLossless = "lossless"
	FailoverOff      = "off"
	CompressionNone  = "none"   // the same as ""
	CompressionZstd  = "zstd"   // bundles that become shorter by it are compressed where they are sealed
	SwitchbackManual = "manual" // the same as ""
	SwitchbackAuto   = "auto"   // the role returns to the preferred node by itself
	ImagesAuto       = "auto"   // before-images only where an entry can be committed without a shadow
	ImagesBoth       = "both"
	ImagesAfter      = "after"
)

// MinSwitchbackAfter is the least wait before the role returns by itself: each attempt may hold writes.
const MinSwitchbackAfter = time.Second

// Limits of a receiver's size.
const (
	minReceiverBytes = 64 << 10
	maxReceiverBytes = 16 << 30
)

// Validate checks a normalized spec and reports everything that is wrong with it.
func (s GroupSpec) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := checkName(string(s.Name)); err != nil {
		bad("name: %w", err)
	}
	errs = append(errs, s.checkFiles()...)
	if err := s.Keys.check(); err != nil {
		errs = append(errs, err)
	}
	if s.Preferred != "" {
		if err := checkName(string(s.Preferred)); err != nil {
			bad("preferred: %w", err)
		}
	}
	choice := func(field, v string, of ...string) {
		if !slices.Contains(of, v) {
			bad("%s: %q is not one of %s", field, v, strings.Join(of, ", "))
		}
	}
	choice("delivery", string(s.Delivery), string(DeliverySync), string(DeliveryAsync))
	choice("on_no_sync", s.OnNoSync, NoSyncDegrade, NoSyncHold, NoSyncRefuse)
	choice("auto_failover", s.AutoFailover, FailoverLossless, FailoverOff)
	choice("switchback", s.Switchback, "", SwitchbackManual, SwitchbackAuto)
	if s.SwitchbackAfter < 0 || s.SwitchbackAfter > 0 && s.SwitchbackAfter < MinSwitchbackAfter {
		bad("switchback_after: %s is below %s", s.SwitchbackAfter, MinSwitchbackAfter)
	}
	choice("compression", s.Compression, "", CompressionNone, CompressionZstd)
	choice("images", s.Images, ImagesAuto, ImagesBoth, ImagesAfter)
	if s.Secondaries < 1 || s.Secondaries > 16 {
		bad("secondaries: %d is not in 1..16", s.Secondaries)
	}
	if s.ReceiverBytes < minReceiverBytes || s.ReceiverBytes > maxReceiverBytes {
		bad("receiver_bytes: %d is not in %d..%d", s.ReceiverBytes, minReceiverBytes, maxReceiverBytes)
	}
	if s.KeepReceivers < -1 {
		bad("keep_receivers: %d is below -1 (all)", s.KeepReceivers)
	}
	errs = append(errs, s.checkSpace()...)
	errs = append(errs, s.checkFeeds()...)
	return errors.Join(errs...)
}

// checkName checks the name of a node or a group: it becomes part of paths, positions and metrics.
func checkName(name string) error {
	if name == "" || len(name) > 63 {
		return fmt.Errorf("%q is not a name: want 1 to 63 characters", name)
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '-' && c != '_' && c != '.') {
			return fmt.Errorf("%q is not a name: want letters, digits, '-', '_' and '.', beginning with a letter or digit", name)
		}
	}
	return nil
}

func sameSpec(a, b GroupSpec) bool {
	if !slices.Equal(a.Files, b.Files) || a.Keys != b.Keys || !maps.Equal(a.Feeds, b.Feeds) {
		return false
	}
	a.Files, b.Files = nil, nil
	return a.Name == b.Name && a.Order == b.Order && a.Preferred == b.Preferred && a.Delivery == b.Delivery &&
		a.Secondaries == b.Secondaries && a.OnNoSync == b.OnNoSync && a.AutoFailover == b.AutoFailover &&
		a.Images == b.Images && a.ReceiverBytes == b.ReceiverBytes && a.KeepReceivers == b.KeepReceivers &&
		a.Compression == b.Compression && a.JournalReplays == b.JournalReplays && a.Switchback == b.Switchback && a.SwitchbackAfter == b.SwitchbackAfter &&
		a.Blocks == b.Blocks && a.MaximumBlocks == b.MaximumBlocks && a.JournalFull == b.JournalFull && a.ReceiverAge == b.ReceiverAge
}

func (s *State) createGroup(c *CreateGroup, at time.Time) Result {
	spec := c.Spec.Normalize()
	if err := spec.Validate(); err != nil {
		return refuse(RefusedInvalid, "group %q: %v", spec.Name, err)
	}
	if g, ok := s.Groups[spec.Name]; ok {
		if sameSpec(g.Spec, spec) {
			return Result{}
		}
		return refuse(RefusedExists, "group %s exists with another spec", spec.Name)
	}
	if r := s.unused(spec.Name); r != nil {
		return *r
	}
	if c.Planned {
		if r := s.asPlanned(&spec); r != nil {
			return *r
		}
	}
	n, r := s.dataNode(spec.Preferred)
	if r != nil {
		return *r
	}
	if r := s.withFeeders(spec, false); r != nil {
		return *r
	}
	if !n.Lives(c.Incarnation) {
		return refuse(RefusedIncarnation, "node %s does not live as %s: it has to renew its lease before it can be a primary", n.ID, c.Incarnation)
	}
	s.unplan(spec.Name)
	set := []ident.NodeID{n.ID}
	s.putGroup(&Group{
		Spec: spec, Epoch: 1, Phase: PhasePromoted, Primary: n.ID, Incarnation: c.Incarnation,
		InSync: set, SetVersion: 1, History: ident.HistoryTable{},
		Switches: []Certificate{{Group: spec.Name, Kind: CertificateCreate, Epoch: 1, To: n.ID, InSync: set, Loss: LossNone, At: at, Reason: "group created"}},
	})
	return Result{Epoch: 1}
}

func (s *State) changeSet(c *ChangeSet) Result {
	g, r := s.editGroup(c.Group)
	if r != nil {
		return *r
	}
	switch {
	case g.Phase != PhaseOpened || g.Epoch != c.Epoch:
		return g.movedFrom(c.Epoch, PhaseOpened)
	case g.SetVersion != c.Version:
		return refuse(RefusedSet, "the in-sync set of %s is at version %d, not %d", c.Group, g.SetVersion, c.Version)
	case (c.Add == "") == (c.Remove == ""):
		return refuse(RefusedInvalid, "a set change adds or removes one node")
	case c.Remove != "" && c.Remove == g.Primary:
		return refuse(RefusedInvalid, "the primary %s cannot leave its own in-sync set", c.Remove)
	case c.Remove != "" && !g.InSet(c.Remove):
		return refuse(RefusedInvalid, "%s is not in the in-sync set %v", c.Remove, g.InSync)
	case c.Add != "" && g.InSet(c.Add):
		return refuse(RefusedInvalid, "%s is in the in-sync set %v already", c.Add, g.InSync)
	case c.Add != "" && g.Spec.Delivery == DeliveryAsync:
		return g.alone(c.Add)
	case c.Add != "" && g.IsDropped(c.Add) && !mutant.On(mutant.DroppedJoins):
		return g.droppedRefusal(c.Add)
	}
	set := slices.DeleteFunc(slices.Clone(g.InSync), func(n ident.NodeID) bool { return n == c.Remove })
	if c.Add != "" {
		set = append(set, c.Add)
	}
	if g.InSync, r = s.set(set, g.Primary); r != nil {
		return *r
	}
	g.normalSet(g.Primary)
	g.SetVersion++
	s.putGroup(g)
	return Result{}
}

// alone refuses another member than the primary: in async delivery nobody else is known to hold what was acknowledged.
func (g *Group) alone(other any) Result {
	return refuse(RefusedInvalid, "group %s is delivered asynchronously: nobody but its primary is in its in-sync set, not %v", g.Spec.Name, other)
}

// normalSet leaves only the given member in the set of an async group, should it have others from elsewhere.
func (g *Group) normalSet(member ident.NodeID) {
	if g.Spec.Delivery == DeliveryAsync && len(g.InSync) > 1 && g.InSet(member) {
		g.InSync = []ident.NodeID{member}
	}
}

// movedFrom refuses a command that expected another epoch or phase.
func (g *Group) movedFrom(e ident.Epoch, want ...Phase) Result {
	return refuse(RefusedEpoch, "group %s is %s at epoch %s, the command expects %v at epoch %s", g.Spec.Name, g.Phase, g.Epoch, want, e)
}
