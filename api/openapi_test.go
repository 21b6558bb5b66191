package api

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/understudy-ha/understudy/client"
)

// openAPI is what the contract test reads of docs/openapi.yaml.
type openAPI struct {
	OpenAPI    string              `yaml:"openapi"`
	Paths      map[string]pathItem `yaml:"paths"`
	Components struct {
		Schemas map[string]struct {
			Properties map[string]any `yaml:"properties"`
		} `yaml:"schemas"`
		Responses map[string]any `yaml:"responses"`
	} `yaml:"components"`
}

type pathItem struct {
	Parameters []parameter `yaml:"parameters"`
	Get        *operation  `yaml:"get"`
	Put        *operation  `yaml:"put"`
	Post       *operation  `yaml:"post"`
	Delete     *operation  `yaml:"delete"`
	Patch      *operation  `yaml:"patch"`
}

type operation struct {
	OperationID string         `yaml:"operationId"`
	Description string         `yaml:"description"`
	Parameters  []parameter    `yaml:"parameters"`
	RequestBody map[string]any `yaml:"requestBody"`
	Responses   map[string]any `yaml:"responses"`
}

type parameter struct {
	Name string `yaml:"name"`
	In   string `yaml:"in"`
}

func (p pathItem) operations() map[string]*operation {
	all := map[string]*operation{"GET": p.Get, "PUT": p.Put, "POST": p.Post, "DELETE": p.Delete, "PATCH": p.Patch}
	for method, op := range all {
		if op == nil {
			delete(all, method)
		}
	}
	return all
}

func names(in string, params []parameter) []string {
	var n []string
	for _, p := range params {
		if p.In == in {
			n = append(n, p.Name)
		}
	}
	slices.Sort(n)
	return n
}

func readOpenAPI(t *testing.T) (openAPI, string) {
	t.Helper()
	raw, err := os.ReadFile("../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc openAPI
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	return doc, string(raw)
}

// Proves CL-4: the document and the route table say the same, in both directions.
func TestOpenAPIMatchesRoutes(t *testing.T) {
	doc, _ := readOpenAPI(t)
	ids := map[string]string{}
	for _, rt := range routes() {
		path := strings.ReplaceAll(rt.path, ":.*}", "}")
		name := rt.method + " " + path
		op := doc.Paths[path].operations()[rt.method]
		if op == nil {
			t.Errorf("%s is missing in the document", name)
			continue
		}
		want := slices.Sorted(slices.Values(rt.params))
		if got := names("query", op.Parameters); !slices.Equal(got, want) {
			t.Errorf("%s: the document has parameters %q, the table %q", name, got, want)
		}
		var inPath []string
		for part := range strings.SplitSeq(path, "/") {
			if strings.HasPrefix(part, "{") {
				inPath = append(inPath, strings.Trim(part, "{}"))
			}
		}
		slices.Sort(inPath)
		if got := names("path", doc.Paths[path].Parameters); !slices.Equal(got, inPath) {
			t.Errorf("%s: the document has path parameters %q, the path %q", name, got, inPath)
		}
		if (rt.body > 0) != (op.RequestBody != nil) {
			t.Errorf("%s: a body of at most %d bytes in the table, in the document: %t", name, rt.body, op.RequestBody != nil)
		}
		if op.Description == "" || op.OperationID == "" || ids[op.OperationID] != "" {
			t.Errorf("%s: wants a description and an operationId of its own, has %q", name, op.OperationID)
		}
		ids[op.OperationID] = name
		if op.Responses["default"] == nil {
			t.Errorf("%s: wants the problem body as default response", name)
		}
	}
	documented := 0
	for _, item := range doc.Paths {
		documented += len(item.operations())
	}
	if documented != len(routes()) {
		t.Errorf("the document has %d operations, the table %d routes", documented, len(routes()))
	}
}

// The schemas name exactly the fields of the client's types, and every reference has a target.
func TestOpenAPIMatchesTypes(t *testing.T) {
	doc, raw := readOpenAPI(t)
	types := map[string]any{
		"AcceptedLoss": client.AcceptedLoss{}, "EntryAtRisk": client.EntryAtRisk{}, "HeldPosition": client.HeldPosition{}, "LossForecast": client.LossForecast{},
		"MaintenanceState": client.MaintenanceState{}, "Order": client.Order{}, "OrderRequest": client.OrderRequest{}, "PassedOver": client.PassedOver{}, "PauseState": client.PauseState{},
		"Backout": client.Backout{}, "BackoutEntry": client.BackoutEntry{}, "Candidate": client.Candidate{}, "Certificate": client.Certificate{},
		"Check": client.Check{}, "Copy": client.Copy{}, "DepositRequest": client.DepositRequest{}, "Digest": client.Digest{}, "Entry": client.Entry{},
		"Error": problem{Error: &client.Error{}}, "Event": client.Event{}, "FailoverRequest": client.FailoverRequest{}, "GroupHealth": client.GroupHealth{},
		"GroupSpec": client.GroupSpec{}, "GroupStatus": client.GroupStatus{}, "Health": client.Health{}, "Image": client.Image{},
		"Journal": client.Journal{}, "Knock": client.Knock{}, "NodeStatus": client.NodeStatus{}, "Operation": client.Operation{}, "Readiness": client.Readiness{},
		"Receipt": client.Receipt{}, "Receiver": client.Receiver{}, "Record": client.Record{}, "RecordPage": client.RecordPage{}, "Release": client.Release{}, "ReleaseRequest": client.ReleaseRequest{}, "Resync": client.Resync{}, "Status": client.Status{},
		"Step": client.Step{}, "SwitchoverRequest": client.SwitchoverRequest{}, "Target": client.Target{}, "Verification": client.Verification{},
		"ArchivePage": client.ArchivePage{}, "ArchivedReceiver": client.ArchivedReceiver{}, "ArchiveStatus": client.ArchiveStatus{},
		"Repair": client.Repair{}, "RotPlace": client.RotPlace{}, "Scrub": client.Scrub{}, "Schedule": client.Schedule{}, "LocalFiles": client.LocalFiles{}, "HiddenFiles": client.HiddenFiles{},
		"WriteResult": client.WriteResult{},
		"Change":      client.Change{}, "ChangeResult": client.ChangeResult{}, "Condition": client.Condition{}, "FailedCondition": client.FailedCondition{},
		"Transaction": client.Transaction{}, "TransactionResult": client.TransactionResult{},
		"DroppedNode": client.DroppedNode{}, "GroupChange": client.GroupChange{}, "GroupDeletion": client.GroupDeletion{}, "DeletionBlocker": client.DeletionBlocker{}, "Hold": client.Hold{}, "HoldRequest": client.HoldRequest{}, "Readmission": client.Readmission{}, "CopyStart": client.CopyStart{}, "CopyStartRequest": client.CopyStartRequest{},
		"GroupPatch": struct {
			client.GroupSpec
			IfVersion uint64 `json:"if_version"`
		}{},
		"KeyRange": client.KeyRange{}, "RecordPart": client.RecordPart{}, "PlannedGroup": client.PlannedGroup{},
		"EntryPage": client.EntryPage{}, "HistoryPage": client.HistoryPage{}, "Heartbeat": client.Heartbeat{}, "Rewound": client.Rewound{}, "StreamEnd": client.StreamEnd{}, "StreamLine": client.StreamLine{},
	}
	for name, v := range types {
		var got []string
		for field := range doc.Components.Schemas[name].Properties {
			got = append(got, field)
		}
		slices.Sort(got)
		if want := jsonFields(reflect.TypeOf(v)); !slices.Equal(got, want) {
			t.Errorf("schema %s has fields %q, the type %q", name, got, want)
		}
	}
	for name := range doc.Components.Schemas {
		if types[name] == nil {
			t.Errorf("schema %s has no type", name)
		}
	}
	for _, part := range strings.Split(raw, "#/components/")[1:] {
		kind, name, _ := strings.Cut(part[:strings.IndexByte(part, '\'')], "/")
		_, schema := doc.Components.Schemas[name]
		_, response := doc.Components.Responses[name]
		if kind != "headers" && !schema && !response {
			t.Errorf("reference to %s/%s leads nowhere", kind, name)
		}
	}
}

// jsonFields lists the JSON names of a struct's fields, embedded ones included.
func jsonFields(t reflect.Type) []string {
	var fields []string
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.Anonymous && f.IsExported() && name != "-" {
			fields = append(fields, name)
		}
	}
	slices.Sort(fields)
	return fields
}
