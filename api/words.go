package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// notSpan is the answer to a text that should be a duration; example is one that would do.
func notSpan(name, text, example string) *client.Error {
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		return invalid(fmt.Sprintf("%s=%s has no unit", name, shorten(text)), fmt.Sprintf("write %s=%ss for seconds, %s=%sm for minutes", name, shorten(text), name, shorten(text)))
	}
	return invalid(fmt.Sprintf("%s=%s is not a duration", name, shorten(text)), "want a number with a unit, such as "+example)
}

// plainly says what is wrong with JSON without the names of Go's types.
func plainly(err error) string {
	var kind *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	var moment *time.ParseError
	switch {
	case errors.As(err, &kind) && fieldName(kind.Field) != "":
		return fmt.Sprintf("field %q has to be %s, not %s", fieldName(kind.Field), wanted(kind.Type), given(kind.Value))
	case errors.As(err, &kind):
		return "want an object, not " + given(kind.Value)
	case errors.As(err, &moment):
		return fmt.Sprintf("%s is not a time, such as 2026-11-22T15:04:05Z", shorten(moment.Value))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "it ends in the middle of a value"
	case errors.As(err, &syntax):
		return fmt.Sprintf("it is not JSON: byte %d: %s", syntax.Offset, syntax)
	case strings.Contains(err.Error(), "Time."):
		return "a time is not written as text"
	case strings.HasPrefix(err.Error(), "illegal base64"):
		return "data is not base64"
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// fieldName drops the names of Go's embedded types, which begin with a capital letter, from the path of a field.
func fieldName(path string) string {
	parts := slices.DeleteFunc(strings.Split(path, "."), func(p string) bool { return p == "" || p[0] >= 'A' && p[0] <= 'Z' })
	return strings.Join(parts, ".")
}

// wanted names what a field takes.
func wanted(t reflect.Type) string {
	if t == reflect.TypeFor[client.Duration]() {
		return `a duration in quotes, such as "5s"`
	}
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number, not negative and not too large"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Pointer:
		return wanted(t.Elem())
	}
	return "an object"
}

// given names what JSON held instead, as its decoder calls it.
func given(value string) string {
	switch value {
	case "string":
		return "text"
	case "number":
		return "a number"
	case "bool":
		return "true or false"
	case "array":
		return "a list"
	case "object":
		return "an object"
	}
	return strings.TrimPrefix(value, "number ")
}

// bodyRemedy says which fields a body may have.
func bodyRemedy(v any) string {
	if known := fieldsOf(reflect.TypeOf(v)); len(known) > 0 {
		return "the fields are " + strings.Join(known, ", ") + "; see docs/openapi.yaml for the fields"
	}
	return "see docs/openapi.yaml for the fields"
}

// fieldsOf lists the JSON names of a struct's fields.
func fieldsOf(t reflect.Type) (names []string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			names = append(names, fieldsOf(f.Type)...)
		case f.IsExported() && name != "-" && name != "":
			names = append(names, name+ofEach(f.Type))
		}
	}
	return names
}

// ofEach lists the fields of a list's objects, in brackets.
func ofEach(t reflect.Type) string {
	if t.Kind() != reflect.Slice {
		return ""
	}
	if known := fieldsOf(t.Elem()); len(known) > 0 {
		return " (each: " + strings.Join(known, ", ") + ")"
	}
	return ""
}

// orList joins words as people do: a, b or c.
func orList(all []string) string {
	if len(all) < 2 {
		return strings.Join(all, "")
	}
	return strings.Join(all[:len(all)-1], ", ") + " or " + all[len(all)-1]
}
