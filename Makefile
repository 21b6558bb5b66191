# Two commands do everything: `make run` and `make test`.
GO ?= go
BIN := bin/understudy
DATA ?= understudy-dev

.PHONY: all build run test soak lint bench bench-peers demo clean

all: build

build:
	$(GO) build -trimpath -o $(BIN) ./cmd/understudy

# A cluster of three nodes on this machine, in the foreground. Ctrl-C stops it; its data stays in $(DATA).
run: build
	./$(BIN) dev --data $(DATA)

# Everything with the race detector, where the simulations play few seeds; then their full number without it, and what the
# library for Raft does not do without a race; then flipped bits and hostile frames in full; then the proof that broken rules are noticed.
test:
	$(GO) test -race -timeout 40m ./...
	$(GO) test -timeout 20m ./cmd/internal/simulation ./cmd/internal/nodesim
	$(GO) test -timeout 5m -run TestAddressChange ./cluster
	$(GO) test -timeout 5m -run TestEveryFlippedBit ./journal
	$(GO) test -timeout 5m -run TestMillionHostileFrames ./api/resp
	$(GO) test -tags mutant -timeout 20m -run Mutants ./cmd/internal/simulation ./cmd/internal/nodesim

# Seeds and schedules on three levels, one after the other; takes hours. Logs, and what failing schedules leave, are in $(SOAK).
SOAK ?= bin/soak
SEEDS ?= 100000
NODE_SCHEDULES ?= 2000
REAL_SCHEDULES ?= 300
soak:
	@mkdir -p $(SOAK); status=0; \
	run() { \
		name=$$1; shift; began=$$(date +%s); verdict=passed; \
		$(GO) test -v "$$@" > $(SOAK)/$$name.log 2>&1 || { verdict=FAILED; status=1; }; \
		echo "soak: $$name $$verdict in $$(( $$(date +%s) - began )) s; see $(SOAK)/$$name.log"; \
		grep -hE '^ *((simulation|nodesim|faultlab): |--- FAIL)' $(SOAK)/$$name.log || true; \
	}; \
	run simulation -timeout 3h ./cmd/internal/simulation -run TestSeeds -sim.seeds=$(SEEDS); \
	run nodesim -timeout 3h ./cmd/internal/nodesim -run TestSchedules -nodesim.schedules=$(NODE_SCHEDULES); \
	run faultlab -timeout 3h ./cmd/internal/faultlab -faultlab.all -faultlab.schedules=$(REAL_SCHEDULES) -faultlab.keep=$(abspath $(SOAK)); \
	exit $$status

lint:
	@out="$$(gofmt -l .)"; if [ -n "$$out" ]; then echo "not formatted, run gofmt -w:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...

bench:
	$(GO) test -run '^$$' -bench . -benchmem -timeout 30m ./...

# A cluster of three nodes next to a Redis with two replicas (Debian: apt-get install redis-server redis-tools), in the same run. More in
# docs/redis.md; PEERS="-tests set,get -time 5s" and the like choose what is run.
bench-peers: build
	$(GO) run ./cmd/internal/peersbench $(PEERS)

# Loads the Go source tree, fails a primary under load, brings it back, and compares everything.
demo: build
	./$(BIN) demo

clean:
	rm -rf bin
