package cli

import (
	"maps"
	"slices"
	"strings"
)

// parseFeeds reads TARGET:FEEDER pairs, separated by commas, for a merge patch. A target without a feeder goes back to the primary;
// nothing at all means that the primary feeds everybody.
func parseFeeds(value string) (any, error) {
	if value == "" {
		return nil, nil
	}
	feeds := map[string]any{}
	for _, pair := range strings.Split(value, ",") {
		target, feeder, ok := strings.Cut(pair, ":")
		if !ok || target == "" {
			return nil, usagef("feeds=%s: want TARGET:FEEDER, such as c:b", value)
		}
		if _, twice := feeds[target]; twice {
			return nil, usagef("feeds=%s: %s is named twice", value, target)
		}
		if feeds[target] = nil; feeder != "" {
			feeds[target] = feeder
		}
	}
	return feeds, nil
}

// feedsText writes who feeds whom as parseFeeds reads it.
func feedsText(feeds map[string]string) string {
	var pairs []string
	for _, target := range slices.Sorted(maps.Keys(feeds)) {
		pairs = append(pairs, target+":"+feeds[target])
	}
	return strings.Join(pairs, ",")
}
