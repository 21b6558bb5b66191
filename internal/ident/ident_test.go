package ident

import (
	"testing"

	"pgregory.net/rapid"
)

func TestPositionOrder(t *testing.T) {
	ascending := []Position{{}, {0, 1}, {1, 0}, {1, 1}, {1, 2}, {2, 1}, {2, 9}, {3, 0}}
	for i, p := range ascending {
		for j, q := range ascending {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := p.Compare(q); got != want {
				t.Errorf("%s.Compare(%s) = %d, want %d", p, q, got, want)
			}
		}
	}
}

func TestPositionText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Position{Epoch(rapid.Uint64().Draw(t, "epoch")), History(rapid.Uint64().Draw(t, "h"))}
		for _, text := range []string{p.String(), p.Format("orders"), p.Format(GroupName("orders").Of("b"))} {
			g, q, err := ParsePosition(text)
			if err != nil || q != p || (g != "" && g != "orders" && g != "orders/b") {
				t.Fatalf("ParsePosition(%q) = %q, %s, %v", text, g, q, err)
			}
		}
	})
	for _, bad := range []string{"", "3", "3.", ".3", "-1.2", "orders@", "orders@3.x", "3.4.5"} {
		if _, _, err := ParsePosition(bad); err == nil {
			t.Errorf("ParsePosition(%q) succeeded", bad)
		}
	}
}
