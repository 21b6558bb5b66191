package cli

import (
	"encoding/json"
	"testing"
)

func TestParseFeeds(t *testing.T) {
	for value, want := range map[string]string{"": `{"feeds":null}`, "c:b": `{"feeds":{"c":"b"}}`, "c:b,d:": `{"feeds":{"c":"b","d":null}}`} {
		p, err := parsePatch([]string{"feeds=" + value})
		if raw, _ := json.Marshal(p); err != nil || string(raw) != want {
			t.Errorf("%q: %s %v, want %s", value, raw, err, want)
		}
	}
	if got := feedsText(map[string]string{"d": "c", "c": "b"}); got != "c:b,d:c" {
		t.Errorf("%q", got)
	}
}
