package simulation

import (
	"fmt"
	"reflect"
)

// add sums.
func (s *Stats) add(o Stats) {
	sum, other := reflect.ValueOf(s).Elem(), reflect.ValueOf(o)
	for i := range sum.NumField() {
		sum.Field(i).SetUint(sum.Field(i).Uint() + other.Field(i).Uint())
	}
}

// idle names what never happened.
func (s *Stats) idle() (out []string) {
	sum := reflect.ValueOf(s).Elem()
	for i := range sum.NumField() {
		if sum.Field(i).Uint() == 0 {
			out = append(out, sum.Type().Field(i).Name)
		}
	}
	return out
}

// String lists the figures, one a line.
func (s Stats) String() string {
	v := reflect.ValueOf(s)
	out := ""
	for i := range v.NumField() {
		out += fmt.Sprintf("  %-14s %d\n", v.Type().Field(i).Name, v.Field(i).Uint())
	}
	return out
}
