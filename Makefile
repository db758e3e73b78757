SHELL := /bin/bash -o pipefail
MAKEFLAGS += --no-print-directory
TOOLS := $(CURDIR)/.tmp/bin

# Packages whose tests spend their time in SQLite, which is 20 times slower under the race detector, or which only read
# the repository or do sums. They are tested without it, and those of ALONE alone: their loads need the machine.
ALONE := ./shop ./internal/test/crash
NO_RACE := ./sqldb/... ./messaging/outbox/... ./local/... ./shop/... ./internal/test/repotest/... ./internal/test/crash/... ./internal/test/simulation/... ./rollout/analysis/...

.DEFAULT_GOAL := help
.PHONY: help build run test test-short servers image proto bench-shop bench-overload bench-drivers bench-calls bench-sagas bench-events crash soak schemas mutants lint vuln sbom release reproducible fmt cover

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## compile everything
	@go build ./...

run: ## run the reference application in one process
	@go run ./shop

test: ## everything: installs the servers that are missing, then vet and all tests, with the race detector where it pays
	@go build -o $(TOOLS)/ ./tools/servers ./internal/test/repotest/testreport
	@$(TOOLS)/servers install || [ -z "$$CI" ]
	@status=0; race=-race; \
	[ "$$(go env CGO_ENABLED)" = 1 ] || { race=; echo 'no C compiler, so no race detector'; }; \
	echo 'vet'; go vet ./... && go vet -tags user_v2 ./shop/user || status=1; \
	without=$$(go list $(NO_RACE)) && \
	with=$$(go list ./... | grep -vxF "$$without") && \
	{ go test -timeout 20m -json $$race $$with; go test -timeout 20m -json $$(grep -v '/shop$$\|/internal/test/crash$$' <<<"$$without"); \
	go test -p 1 -timeout 30m -json $(ALONE); go test -timeout 20m -json -tags user_v2 ./shop/user; } | $(TOOLS)/testreport || status=1; \
	if [ $$status = 0 ]; then echo 'make test: ok'; else echo 'make test: FAILED'; fi; exit $$status

test-short: ## the tests that need Go alone; the others are counted as skipped
	@go build -o $(TOOLS)/ ./internal/test/repotest/testreport
	@go test -short -json ./... | $(TOOLS)/testreport

servers: ## install and run PostgreSQL, Kafka, RabbitMQ, NATS, Consul, Redis, Prometheus, Jaeger, VictoriaLogs and Kubernetes' API server, until Ctrl-C
	@go build -o $(TOOLS)/servers ./tools/servers
	@$(TOOLS)/servers install
	@$(TOOLS)/servers start

image: ## the shop as an image in .tmp/shop.tar, for docker load, podman load and ctr images import; VERSION=v1 is its tag
	@go run ./tools/image -version '$(VERSION)' -revision "$$(git rev-parse HEAD 2>/dev/null)" $(if $(TAGS),-tags '$(TAGS)')

cluster: ## a Kubernetes of one node on this machine, with real containers and the shop of deploy/kubernetes, until Ctrl-C (Linux, root)
	@go build -o $(TOOLS)/servers ./tools/servers
	@$(TOOLS)/servers install cluster postgres
	@$(TOOLS)/servers cluster

proto: ## generate the Go code of shop/proto
	@command -v protoc >/dev/null || { \
		echo 'make proto needs protoc 21.12 or later. Debian: apt install protobuf-compiler; macOS: brew install protobuf' >&2; exit 1; }
	@cd tools/protoc && go build -o $(TOOLS)/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
	@PATH="$(TOOLS):$$PATH" protoc -I shop/proto \
		--go_out=shop/proto --go_opt=paths=source_relative \
		--go-grpc_out=shop/proto --go-grpc_opt=paths=source_relative \
		$$(find shop/proto -name '*.proto' | sort)

bench-shop: ## measure the reference application
	@go test ./shop -run '^$$' -bench Shop -benchtime 1x

bench-overload: ## 16, 64 and 1,000 clients that order at full speed; KAPTAR_FLOOD_CLIENTS=16,1000 and KAPTAR_FLOOD_TIME=10s for less
	@go test ./shop -run '^$$' -bench Overload -benchtime 1x -timeout 20m

bench-drivers: ## each message driver against its bare client library, on real servers
	@cd bench && go run .

bench-calls: ## kaptar's calls beside its rivals', into docs/performance.md; ARGS='-rounds 3 -stacks kaptar,bare' for less
	@cd bench/calls && go run . -docs ../../docs $(ARGS)

bench-sagas: ## the steps of sagas beside DBOS Transact on one PostgreSQL, and both killed; ARGS='-rounds 3 -sagas 500 -kills 3' for less
	@cd bench/sagas && go run . $(ARGS)

bench-events: ## events from commit to effect beside Watermill, into docs/performance.md; ARGS='-rounds 2 -parts drain' for less
	@cd bench/events && go run . -docs ../../docs $(ARGS)

crash: ## kill writers, relays, consumers, brokers and databases N times in each of two shapes, cut the power N/5 times, and check every event; SEED=5 for the same again
	@go test -count=1 -v -timeout 0 ./internal/test/crash -run '^Test(Crash|CrashServers|PowerCut)$$' -kills $(or $(N),100) $(if $(SEED),-seed $(SEED))

soak: ## a steady load for SOAK=10m with the broker away in the middle: tables, heap and goroutines stay what they were
	@go test -count=1 -v -timeout 0 ./internal/test/crash -run '^TestSoak$$' -soak $(or $(SOAK),10m)

schemas: ## compare the shop's events with those of the last release, and fail if running consumers could not live with a change; SINCE=v1.2.3
	@tag='$(SINCE)'; [ -n "$$tag" ] || tag=$$(git describe --tags --abbrev=0 --match 'v*' HEAD^ 2>/dev/null) || \
		{ echo 'make schemas: there is no release to compare with'; exit 0; }; \
	dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	git archive "$$tag" shop/events/schema 2>/dev/null | tar -x -C "$$dir" 2>/dev/null || \
		{ echo "make schemas: $$tag has no shop/events/schema"; exit 0; }; \
	go run ./shop events check "$$dir/shop/events/schema"

mutants: ## break the promises one at a time and see that tests notice; SINCE=main: those that the change touches; FOR=10m: no longer
	@go test -count=1 -v -timeout 0 ./internal/test/mutants -run '^TestMutants$$' -mutants '$(or $(SINCE),all)' $(if $(FOR),-for $(FOR))

lint: ## golangci-lint with .golangci.yml and actionlint for the workflows, in the versions of tools/
	@cd tools/golangci && go build -o $(TOOLS)/ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@cd tools/actionlint && go build -o $(TOOLS)/ github.com/rhysd/actionlint/cmd/actionlint
	@$(TOOLS)/actionlint -shellcheck= -pyflakes= # which are not the same on all machines
	@$(TOOLS)/golangci-lint run

vuln: ## govulncheck, with the database of VULNDB (default: the public one; also file://, of a checkout of golang/vulndb its folder data/osv)
	@cd tools/govulncheck && go build -o $(TOOLS)/ golang.org/x/vuln/cmd/govulncheck
	@out=$$($(TOOLS)/govulncheck $(if $(VULNDB),-db $(VULNDB)) ./... 2>&1); status=$$?; echo "$$out"; \
	if [ $$status != 0 ] && [ -z '$(VULNDB)' ] && grep -q '^govulncheck: fetching vulnerabilities:' <<<"$$out"; then \
		echo 'make vuln: NOT CHECKED, the database of vulnerabilities cannot be reached from here'; exit 0; fi; exit $$status

sbom: ## what the shop's binary is made of, with licenses, as CycloneDX in .tmp/sbom.json; the same for the same source
	@cd tools/cyclonedx && go build -trimpath -o $(TOOLS)/ github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
	@CGO_ENABLED=0 go build -trimpath -buildvcs=false -o .tmp/shop ./shop
	@$(TOOLS)/cyclonedx-gomod bin -json -licenses -std -noserial -notimestamp -output .tmp/sbom.json .tmp/shop
	@diff <(go version -m .tmp/shop | awk '$$1 == "dep" { print $$2 "@" $$3 }' | sort) \
		<(sed -n 's/^      "purl": "pkg:golang\/\([^?"]*\).*/\1/p' .tmp/sbom.json | sed 's|%2B|+|g' | grep -v '^std@\|^github.com/kaptar/kaptar$$' | sort) || \
		{ echo 'make sbom: .tmp/sbom.json (>) does not list what is linked (<)' >&2; exit 1; }

release: ## what a release has, in dist: VERSION=v1.2.3; PLATFORMS=linux/amd64 for less
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) go run ./tools/release -version '$(VERSION)' -revision "$$(git rev-parse HEAD)" \
		$(if $(PLATFORMS),-platforms '$(PLATFORMS)')

reproducible: ## a release twice, here and from a copy elsewhere without a cache, in another time zone: the same bytes; VERSION, PLATFORMS
	@set -e; copy=$$(mktemp -d); trap 'rm -rf "$$copy"' EXIT; mkdir "$$copy/source"; \
	git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -C "$$copy/source"; \
	export SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct); \
	set -- go run ./tools/release -version '$(or $(VERSION),v0.0.0-dev)' -platforms '$(or $(PLATFORMS),linux/amd64)' -revision "$$(git rev-parse HEAD)"; \
	"$$@"; cd "$$copy/source"; umask 077; GOCACHE=$$copy/cache TZ=Asia/Kathmandu LC_ALL=C "$$@" >/dev/null; \
	diff '$(CURDIR)/dist/SHA256SUMS' dist/SHA256SUMS; echo 'make reproducible: ok, two builds, the same bytes'

fmt: ## gofmt
	@gofmt -l -w $$(git ls-files --cached --others --exclude-standard '*.go' | grep -v '\.pb\.go$$')

cover: ## tests with coverage; the report is .tmp/cover.html
	@mkdir -p .tmp
	@go test -coverprofile=.tmp/cover.out -coverpkg=./... ./... >/dev/null
	@go tool cover -html=.tmp/cover.out -o .tmp/cover.html
	@go tool cover -func=.tmp/cover.out | tail -n 1
