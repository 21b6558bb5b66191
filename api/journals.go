package api

import (
	"fmt"
	"slices"

	"github.com/understudy-ha/understudy/client"
)

// journal returns group and author in the path; "local" is this node.
func (r *request) journal(self string) (group, node string, err error) {
	if group, err = r.group(); err != nil {
		return "", "", err
	}
	if node, err = r.variable("node"); err != nil {
		return "", "", err
	}
	if node == client.Local {
		node = self
	}
	return group, node, nil
}

func (a *API) journals(r *request) (reply, error) {
	group, err := r.group()
	if err != nil {
		return nil, err
	}
	return items(a.o.Journals.Journals(r.Context(), group))
}

func (a *API) receivers(r *request) (reply, error) {
	group, node, err := r.journal(a.o.Node)
	if err != nil {
		return nil, err
	}
	return items(a.o.Journals.Receivers(r.Context(), group, node))
}

func validType(s string) bool {
	if len(s) != 2 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

func (a *API) verify(r *request) (reply, error) {
	group, node, err := r.journal(a.o.Node)
	if err != nil {
		return nil, err
	}
	if err := a.o.Journals.Verify(r.drain, group, node); err != nil {
		return nil, err
	}
	return answer(client.Verification{Journal: group + "/" + node, OK: true}, nil)
}

func (a *API) changeReceiver(r *request) (reply, error) {
	group, err := r.group()
	if err != nil {
		return nil, err
	}
	return answer(a.o.Journals.ChangeReceiver(r.Context(), group))
}

func (a *API) depositEntry(r *request) (reply, error) {
	group, err := r.group()
	if err != nil {
		return nil, err
	}
	var d client.DepositRequest
	if err := r.decode(&d); err != nil {
		return nil, err
	}
	switch {
	case !validType(d.Type):
		return nil, invalid(fmt.Sprintf("type %q is not possible", shorten(d.Type)), "want two upper-case letters or digits of your own")
	case slices.Contains([]string{"SW", "MK", "HB"}, d.Type):
		return nil, invalid(fmt.Sprintf("type %q belongs to the product", d.Type), "choose another one")
	case len(d.Data) > 0 && d.Text != "":
		return nil, invalid("both data and text are given", "give one of them")
	}
	data := d.Data
	if d.Text != "" {
		data = []byte(d.Text)
	}
	w, err := a.o.Journals.DepositEntry(r.Context(), group, d.Type, data, r.writeOptions())
	w.Created = true
	return written(w, err)
}

func (a *API) backouts(r *request) (reply, error) {
	group, err := r.group()
	if err != nil {
		return nil, err
	}
	return items(a.o.Journals.Backouts(r.Context(), group))
}

func (a *API) backout(r *request) (reply, error) {
	group, err := r.group()
	if err != nil {
		return nil, err
	}
	id, err := r.variable("id")
	if err != nil {
		return nil, err
	}
	return answer(a.o.Journals.Backout(r.Context(), group, id))
}

func (a *API) digest(r *request) (reply, error) {
	group, err := r.group()
	if err != nil {
		return nil, err
	}
	return answer(a.o.Journals.Digest(r.Context(), group))
}
