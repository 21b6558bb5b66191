package client

import "context"

// LossForecast says what a failover with allow_data_loss may lose, before it is done. Positions are history positions.
type LossForecast struct {
	Group   string         `json:"group"`
	To      string         `json:"to"`
	Epoch   uint64         `json:"epoch"`
	Primary string         `json:"primary"` // "" when nobody is
	Loss    string         `json:"loss"`    // "none", or what may be lost, in words
	Beyond  string         `json:"beyond"`  // the end of what To holds: everything after it may be lost
	Highest string         `json:"highest"` // the highest end that any node that answered holds, or that is proved to be committed
	Entries uint64         `json:"entries"` // known to lie between Beyond and the highest end told by anybody or proved, at most
	Exact   bool           `json:"exact"`   // everybody who may hold more has answered, and nobody takes writes meanwhile
	Nodes   []HeldPosition `json:"nodes"`   // what every data node holds or last told
	First   []EntryAtRisk  `json:"first"`   // the first entries at risk, where a living node could be read
	Fate    string         `json:"fate"`    // what becomes of them
	Confirm string         `json:"confirm"` // to be repeated as "confirm" in the real request
	Warning string         `json:"warning,omitempty"`
	Unable  string         `json:"unable,omitempty"` // why To cannot serve, as it said; it is given the role with AcceptUnable only
}

// HeldPosition is what one data node holds of a group.
type HeldPosition struct {
	Node     string `json:"node"`
	Answered bool   `json:"answered"`           // else what it told with its last lease
	InSync   bool   `json:"in_sync"`            // a member of the set
	Position string `json:"position,omitempty"` // the end of what it holds
	Beyond   uint64 `json:"beyond"`             // entries it holds beyond the end of the chosen node, at most
	Told     string `json:"told,omitempty"`     // of one that did not answer: the ends of its journals, and what it had applied
	Reported string `json:"reported,omitempty"` // the position it reported to the failover that runs
	Error    string `json:"error,omitempty"`
}

// EntryAtRisk is an entry that a failover may lose.
type EntryAtRisk struct {
	Node     string `json:"node"` // who holds it
	Journal  string `json:"journal"`
	Sequence uint64 `json:"sequence"`
	Position string `json:"position"`
	Code     string `json:"code"`
	Type     string `json:"type"`
	File     string `json:"file,omitempty"`
	Key             // fields key, key_base64
}

// AcceptedLoss is what an operator confirmed before a failover that could lose entries.
type AcceptedLoss struct {
	Beyond  string `json:"beyond"`            // the end of the chosen node, as the forecast named it
	Highest string `json:"highest,omitempty"` // the highest end known then; "": not limited
	Entries uint64 `json:"entries"`           // how many were known to lie between
	By      string `json:"by,omitempty"`
}

// ForecastFailover says what a failover to r.To with AllowDataLoss may lose. It changes nothing.
func (c *Client) ForecastFailover(ctx context.Context, group string, r FailoverRequest) (LossForecast, error) {
	r.DryRun = true
	x, err := post(r, "v1", "groups", group, "failover")
	if err != nil {
		return LossForecast{}, err
	}
	return ask[LossForecast](ctx, c, x)
}
