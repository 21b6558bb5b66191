package node

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"
)

// Proves CL-6: the alert rules in deploy ask for metrics that nodes have, with every label that their texts name, and all tell what helps. Every
// metric of local files that says that something is wrong has a rule.
func TestAlertRulesAskForWhatThereIs(t *testing.T) {
	n := &Node{config: DefaultConfig()}
	labels := map[string]string{} // of each metric, as its description prints them
	ch := make(chan *prometheus.Desc)
	go func() {
		defer close(ch)
		for _, c := range []prometheus.Collector{newMetrics(n), newLocalMetrics(n), newArchiveMetrics(n)} {
			c.Describe(ch)
		}
	}()
	name := regexp.MustCompile(`fqName: "([^"]+)"`)
	for d := range ch {
		labels[name.FindStringSubmatch(d.String())[1]] = d.String()
	}
	raw, err := os.ReadFile("../../../deploy/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []struct {
				Alert       string            `yaml:"alert"`
				Expr        string            `yaml:"expr"`
				For         string            `yaml:"for"`
				Labels      map[string]string `yaml:"labels"`
				Annotations map[string]string `yaml:"annotations"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.UnmarshalWithOptions(raw, &file, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	asked := map[string]bool{}
	seen := map[string]bool{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if seen[r.Alert] || r.Alert == "" || !slices.Contains([]string{"warning", "critical"}, r.Labels["severity"]) || r.Annotations["summary"] == "" || r.Annotations["remedy"] == "" {
				t.Errorf("%q wants a name of its own, a severity, a summary and a remedy: %+v", r.Alert, r)
			}
			seen[r.Alert] = true
			used := regexp.MustCompile(`understudy_[a-z_]+`).FindAllString(r.Expr, -1)
			for _, m := range used {
				if asked[m] = true; labels[m] == "" {
					t.Errorf("%s: there is no metric %s", r.Alert, m)
				}
			}
			for _, l := range regexp.MustCompile(`\$labels\.([a-z]+)`).FindAllStringSubmatch(r.Annotations["summary"]+r.Annotations["remedy"], -1) {
				switch {
				case len(used) == 0: // of Prometheus itself
				case strings.Contains(r.Expr, "by ("):
					if !strings.Contains(r.Expr, "by ("+l[1]+")") {
						t.Errorf("%s: its result has no label %s", r.Alert, l[1])
					}
				case !strings.Contains(labels[used[0]], l[1]):
					t.Errorf("%s: %s has no label %s", r.Alert, used[0], l[1])
				}
			}
		}
	}
	for _, m := range []string{"writable", "journal_full", "journal_runway_seconds", "hidden_records"} {
		if !asked["understudy_local_"+m] {
			t.Errorf("no rule asks for understudy_local_%s", m)
		}
	}
}
