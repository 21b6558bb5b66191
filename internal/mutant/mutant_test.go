package mutant

import "testing"

// TestList: every variant is described once.
func TestList(t *testing.T) {
	names := map[string]bool{}
	all := All()
	if len(all) != int(count)-1 {
		t.Fatalf("%d variants are described, %d exist", len(all), count-1)
	}
	for i, m := range all {
		if m.Variant != Variant(i+1) || m.Name == "" || m.Breaks == "" || m.Violates == "" || names[m.Name] {
			t.Errorf("variant %d: %+v", i+1, m)
		}
		names[m.Name] = true
		if On(m.Variant) {
			t.Errorf("%s is on although nobody chose it", m.Name)
		}
	}
}
