package cli

import (
	"fmt"
	"io"
	"math"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// sizing is what the room of a journal is computed from.
type sizing struct {
	MessageBytes   int           `json:"message_bytes"` // of one record's value
	KeyBytes       int           `json:"key_bytes"`
	FileBytes      int           `json:"file_bytes"`
	PerTransaction int           `json:"per_transaction"` // messages
	Rate           float64       `json:"rate"`            // transactions per second
	Outage         time.Duration `json:"-"`
	OutageSeconds  float64       `json:"outage_seconds"`
	ReceiverBytes  int64         `json:"receiver_bytes"`
}

// room is what a journal needs with one setting of images.
type room struct {
	Images         string  `json:"images"`
	EntryBytes     int     `json:"entry_bytes"`  // one message
	BundleBytes    int     `json:"bundle_bytes"` // one transaction that no other shares its bundle with
	BytesPerSecond float64 `json:"bytes_per_second"`
	Receivers      int64   `json:"receivers"`      // filled during the outage
	Bytes          int64   `json:"bytes"`          // that they take
	Blocks         int64   `json:"blocks"`         // MiB of them
	MaximumBlocks  int64   `json:"maximum_blocks"` // the least cap under which the primary's own journal takes them
}

// sizes is the answer of `journal size`.
type sizes struct {
	sizing
	Rooms   []room   `json:"rooms"`
	Formula []string `json:"formula"`
}

// room computes what one setting needs, with the sizes of the format itself.
func (s sizing) room(images string) (room, error) {
	e := entry.Entry{Code: entry.Record, Type: entry.Update, File: string(make([]byte, s.FileBytes)), Key: make([]byte, s.KeyBytes), After: &entry.Image{Value: make([]byte, s.MessageBytes)}}
	e.BeforeOmitted = true
	if images == "both" {
		e.BeforeOmitted, e.Before = false, &entry.Image{Value: make([]byte, s.MessageBytes)}
	}
	one := make([]entry.Entry, s.PerTransaction)
	for i := range one {
		one[i] = e
	}
	r := room{Images: images, BundleBytes: entry.Size(one)}
	r.EntryBytes = (entry.Size([]entry.Entry{e, e, e, e, e, e, e, e}) - entry.Size(nil)) / 8 // without padding
	if r.BundleBytes > entry.MaxBundle {
		return r, usagef("a transaction of %s is larger than a bundle, %s: split it", humanBytes(int64(r.BundleBytes)), humanBytes(entry.MaxBundle))
	}
	r.BytesPerSecond = s.Rate * float64(r.BundleBytes)
	ends := int64(2 * entry.Size([]entry.Entry{{Code: entry.Journal, Type: entry.Next, Data: make([]byte, 6)}})) // J NR and J PR
	payload := s.ReceiverBytes - journal.HeaderSize - ends
	if payload < int64(r.BundleBytes) {
		return r, usagef("--receiver-bytes %d: a receiver does not take one transaction of %s", s.ReceiverBytes, humanBytes(int64(r.BundleBytes)))
	}
	payload -= payload % int64(r.BundleBytes)
	receivers := math.Ceil(r.BytesPerSecond * s.Outage.Seconds() / float64(payload))
	if receivers*float64(s.ReceiverBytes) > 1<<60 {
		return r, usagef("more than an exbibyte: check --rate and --outage")
	}
	r.Receivers = int64(receivers)
	r.Bytes = r.Receivers * s.ReceiverBytes
	r.Blocks = mebibytes(r.Bytes)
	need := r.Bytes + s.ReceiverBytes // and the attached one
	r.MaximumBlocks = mebibytes(max(need+need/7+1, need+s.ReceiverBytes, 4*s.ReceiverBytes))
	return r, nil
}

func mebibytes(n int64) int64 { return (n + 1<<20 - 1) >> 20 }

func newJournalSize(a *app) *cobra.Command {
	s := sizing{}
	images := ""
	cmd := &cobra.Command{
		Use:   "size --message-bytes N --rate R --outage D",
		Short: "Compute how much room journals need for an outage",
		Long: `Compute how much room the journals of a group need so that a node may be away for a time: everything written meanwhile is
kept for it. It computes with the sizes of the format, one transaction to a bundle; under load several share one, and
less is needed. With images auto a group that is alone, or asynchronous, writes as with both.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s.OutageSeconds = s.Outage.Seconds()
			switch {
			case !cmd.Flags().Changed("message-bytes"):
				return usagef("--message-bytes is missing: how large a record's value is")
			case s.MessageBytes < 0 || s.MessageBytes > entry.MaxValue:
				return usagef("--message-bytes %d: want 0 to %d", s.MessageBytes, entry.MaxValue)
			case s.KeyBytes < 1 || s.KeyBytes > 4096 || s.FileBytes < 1 || s.FileBytes > 255:
				return usagef("--key-bytes %d, --file-bytes %d: want 1 to 4096, and 1 to 255", s.KeyBytes, s.FileBytes)
			case s.PerTransaction < 1 || s.PerTransaction > 100000:
				return usagef("--per-transaction %d: want 1 to 100000", s.PerTransaction)
			case !(s.Rate > 0) || math.IsInf(s.Rate, 0):
				return usagef("--rate is missing: how many transactions per second")
			case s.Outage <= 0:
				return usagef("--outage is missing: how long a node may be away, such as 8h")
			case images != "" && images != "both" && images != "after":
				return usagef("--images %q: want both or after", images)
			case int64(s.MessageBytes)*int64(s.PerTransaction) > entry.MaxBundle:
				return usagef("a transaction of %s is larger than a bundle, %s: split it", humanBytes(int64(s.MessageBytes)*int64(s.PerTransaction)), humanBytes(entry.MaxBundle))
			}
			out := sizes{sizing: s, Formula: []string{
				"entry    = 24 + file + key + (4 + 8 + message) + with both: (36 + message)",
				fmt.Sprintf("bundle   = %d + entries of the transaction, up to a multiple of 8", entry.HeaderSize),
				"receivers = rate * bundle * outage / (receiver - header and ends), rounded up",
				"maximum  = (receivers + the attached one) * receiver * 8/7: a primary's own journal gets seven eighths of the cap",
				"replays  = with journal_replays each backup records the same once more, up to replays.bytes of its configuration",
			}}
			for _, setting := range []string{"after", "both"} {
				if images != "" && images != setting {
					continue
				}
				r, err := s.room(setting)
				if err != nil {
					return err
				}
				out.Rooms = append(out.Rooms, r)
			}
			return a.show(out, func(w io.Writer) { writeSizes(w, out) })
		},
	}
	fl := cmd.Flags()
	fl.IntVar(&s.MessageBytes, "message-bytes", 0, "size of one message: the value of a record (required)")
	fl.IntVar(&s.KeyBytes, "key-bytes", 16, "size of its key")
	fl.IntVar(&s.FileBytes, "file-bytes", 8, "length of the file's name")
	fl.IntVar(&s.PerTransaction, "per-transaction", 1, "messages in one transaction")
	fl.Float64Var(&s.Rate, "rate", 0, "transactions per second (required)")
	fl.DurationVar(&s.Outage, "outage", 0, "the longest time a node may be away, such as 8h (required)")
	fl.StringVar(&images, "images", "", "only for this setting: both or after")
	fl.Int64Var(&s.ReceiverBytes, "receiver-bytes", 64<<20, "receiver_bytes of the group")
	return cmd
}

func writeSizes(w io.Writer, s sizes) {
	t := newTable("IMAGES", ">ENTRY", ">BUNDLE", ">PER SECOND", ">RECEIVERS", ">ROOM", ">BLOCKS", ">MAXIMUM_BLOCKS")
	for _, r := range s.Rooms {
		t.add(r.Images, fmt.Sprintf("%d B", r.EntryBytes), fmt.Sprintf("%d B", r.BundleBytes), humanBytes(int64(r.BytesPerSecond)), r.Receivers, humanBytes(r.Bytes), r.Blocks, r.MaximumBlocks)
	}
	t.write(w)
	fmt.Fprintf(w, "\nFor each journal, on each node. An outage of %s at %g transactions per second, %s of %s each.\n",
		s.Outage, s.Rate, plural(s.PerTransaction, "message", "messages"), humanBytes(int64(s.MessageBytes)))
	for _, f := range s.Formula {
		fmt.Fprintln(w, "  "+f)
	}
}
