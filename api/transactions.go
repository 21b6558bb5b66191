package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// Transactions takes changes that happen as a whole or not at all. Errors are as in Data.
type Transactions interface {
	// Transact returns once the transaction is committed; code precondition, with Failed, when a condition does not hold. Its form was
	// checked, and it has no TTL any more.
	Transact(ctx context.Context, t client.Transaction, o WriteOptions) (client.TransactionResult, error)
}

func (a *API) transact(r *request) (reply, error) {
	var t client.Transaction
	if err := r.decode(&t); err != nil {
		return nil, err
	}
	if err := checkTransaction(&t, time.Now()); err != nil {
		return nil, err
	}
	w, err := a.o.Data.Transact(r.Context(), t, r.writeOptions())
	if err != nil {
		return nil, err
	}
	if w.Changes == nil {
		w.Changes = []client.ChangeResult{}
	}
	return replayable(w.Replayed)(jsonReply(http.StatusOK, w, receiptHeaders(w.Position, w.Local)...))
}

// replayable adds the header that tells an answer that was given before.
func replayable(replayed bool) func(reply, error) (reply, error) {
	return func(rep reply, err error) (reply, error) {
		if err != nil || !replayed {
			return rep, err
		}
		return func(w http.ResponseWriter) {
			w.Header().Set(client.HeaderReplayed, "true")
			rep(w)
		}, nil
	}
}

// checkTransaction refuses what no group could do, and turns each TTL into an expiry.
func checkTransaction(t *client.Transaction, now time.Time) error {
	most := func(what string, n int) error {
		if n > client.MaxTransactionChanges {
			return &client.Error{Code: client.CodeTooLarge, Detail: fmt.Sprintf("the transaction has %d %s, at most %d are possible", n, what, client.MaxTransactionChanges), Remedy: "split it"}
		}
		return nil
	}
	if len(t.Changes) == 0 {
		return invalid("the transaction has no changes", `give at least one: {"changes":[{"file":"orders","key":"4711","value":"3 apples"}]}`)
	}
	if err := most("changes", len(t.Changes)); err != nil {
		return err
	}
	if err := most("conditions", len(t.Conditions)); err != nil {
		return err
	}
	for i := range t.Changes {
		if err := checkChange(&t.Changes[i], now); err != nil {
			return within("changes", i, err)
		}
	}
	for i := range t.Conditions {
		c := &t.Conditions[i]
		if err := checkName(c.File, c.Key); err != nil {
			return within("conditions", i, err)
		}
		if n, err := checkCondition(c.IfAbsent, c.IfExists, c.IfPosition); err != nil || n != 1 {
			if err == nil {
				err = invalid(fmt.Sprintf("it has %d conditions", n), "want exactly one of if_absent, if_exists and if_position")
			}
			return within("conditions", i, err)
		}
	}
	return nil
}

// within says in which part of a transaction an error is.
func within(part string, i int, err *client.Error) error {
	c := *err
	c.Status = 0 // not in the path
	c.Detail = fmt.Sprintf("%s[%d]: %s", part, i, c.Detail)
	return &c
}

func checkChange(c *client.Change, now time.Time) *client.Error {
	if err := checkName(c.File, c.Key); err != nil {
		return err
	}
	if n, err := checkCondition(c.IfAbsent, c.IfExists, c.IfPosition); err != nil || n > 1 {
		if err == nil {
			err = invalid(fmt.Sprintf("it has %d conditions", n), "want at most one of if_absent, if_exists and if_position")
		}
		return err
	}
	value := c.Plain != nil || c.Exact != nil
	switch {
	case c.Delete && (value || !c.Expiry.IsZero() || c.TTL != 0):
		return invalid("a deletion with a value or an expiry", "leave them out, or leave delete out")
	case c.Delete && c.IfAbsent:
		return invalid("a deletion of what is absent", "leave if_absent out")
	case c.Delete:
		return nil
	case !value:
		return invalid("neither value nor value_base64 nor delete", "give one of them; an empty value is written \"\"")
	case c.Plain != nil && c.Exact != nil:
		return invalid("both value and value_base64", "give one of them")
	case len(c.Content()) > client.MaxValue:
		return &client.Error{Code: client.CodeTooLarge, Detail: fmt.Sprintf("the value has %d bytes, at most %d are possible", len(c.Content()), client.MaxValue), Remedy: "split the content, or keep it elsewhere and store its address"}
	case !c.Expiry.IsZero() && c.TTL != 0:
		return invalid("both expiry and ttl", "say until when, or for how long")
	case c.TTL < 0:
		return invalid("ttl="+c.TTL.String()+" is not more than 0s", "want a duration of more than 0s")
	case c.TTL > 0:
		c.Expiry, c.TTL = now.Add(time.Duration(c.TTL)), 0
	}
	if year := c.Expiry.UTC().Year(); !c.Expiry.IsZero() && (year < 1970 || year > 2200) {
		return invalid("expiry="+c.Expiry.Format(time.RFC3339)+" is not possible", "want a year from 1970 to 2200")
	}
	return nil
}

// checkName refuses what cannot name a record.
func checkName(file string, key client.Key) *client.Error {
	if err := checkFile(file); err != nil {
		return err
	}
	k := key.Bytes()
	if len(k) == 0 {
		return invalid("the key is empty", "give key, or key_base64 for any bytes")
	}
	if len(k) > client.MaxKey {
		return &client.Error{Code: client.CodeTooLarge, Detail: fmt.Sprintf("the key has %d bytes, at most %d are possible", len(k), client.MaxKey), Remedy: "choose shorter keys, such as a hash"}
	}
	return nil
}

// checkCondition returns how many conditions are set.
func checkCondition(absent, exists bool, position string) (n int, _ *client.Error) {
	for _, set := range []bool{absent, exists, position != ""} {
		if set {
			n++
		}
	}
	if position == "" {
		return n, nil
	}
	return n, checkPosition("if_position", position)
}
