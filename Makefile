# Two commands do everything: `make run` and `make test`.
GO ?= go
BIN := bin/understudy
DATA ?= understudy-dev

.PHONY: all build run test lint bench demo clean

all: build

build:
	$(GO) build -trimpath -o $(BIN) ./cmd/understudy

# A cluster of three nodes on this machine, in the foreground. Ctrl-C stops it; its data stays in $(DATA).
run: build
	./$(BIN) dev --data $(DATA)

test:
	$(GO) test -race -timeout 10m ./...

lint:
	@out="$$(gofmt -l .)"; if [ -n "$$out" ]; then echo "not formatted, run gofmt -w:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...

bench:
	$(GO) test -run '^$$' -bench . -benchmem -timeout 30m ./...

# Loads the Go source tree, fails a primary under load, brings it back, and compares everything.
demo: build
	./$(BIN) demo

clean:
	rm -rf bin
