# middleway: `make` lists the targets. They need Go, make and a POSIX shell, nothing else; some of the long and the tidying ones also its utilities.

GO         ?= go
BENCH      ?= .
BENCHFLAGS ?=
FUZZTIME   ?= 30s
PACKAGES   ?= ./...
TESTFLAGS  ?=
VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# What make image writes: its name, its architectures (Docker's own image store gets the first) and the time of all files in it.
IMAGE      ?= middleway
ARCHES     ?= amd64 arm64
CREATED    ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

# -trimpath: the same bytes from every checkout, and one build cache for all checkouts and users, and for all that is done here.
# -buildvcs=false: main.version says it, and no build fails because git distrusts the owner of the checkout.
# The caller's GOFLAGS stay in force; what is given here comes after them.
FLAGS    := -trimpath -buildvcs=false
STATIC   := $(GO) build $(FLAGS) -ldflags '-s -w -X main.version=$(VERSION)'
# -count=1: these tests depend on kernel, privileges and devices, which go's cache of test results does not see.
# -ldflags=-s: linking takes half the time without what debuggers read; stack traces and profiles have no use for it.
GOTEST   := $(GO) test $(FLAGS) -ldflags=-s -count=1
# The test cluster (test/kube): its name, its size, its pod network. Its image is for this machine alone.
CLUSTER ?= kube
NODES   ?= 2
FAMILY  ?= ipv4
NETWORK ?= middleway
BESIDE  ?=
kube-up: ARCHES = $(shell $(GO) env GOARCH)

# What tests run in pods, where the machine's programs stand for an image; neither make test nor what it tests needs them.
PODPROGRAMS := cat chmod cp cut date dd echo env false grep head id ln ls mkdir mktemp mount mv printf pwd readlink rm sed seq setsid \
	sleep sort stat stty tail tee test timeout touch tr true tty umount uname uniq wc whoami yes
PROGRAMS := ./cmd/middleway ./cmd/middleway-cni

# We ship without cgo, so we test without it.
export CGO_ENABLED = 0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help build cross demo demo-asuser test test-asuser test-tun-only test-tun-only-noipv6 race bench fuzz soak image manifest test-deploy kube kube-build kube-up kube-down e2e test-apiserver test-kube lint tidy clean asuser tunonly

help:
	@echo 'make TARGET, one of:'; while IFS= read -r line; do case "$$line" in [a-z]*:*'## '*) \
		printf '  %-20s %s\n' "$${line%%:*}" "$${line#*## }";; esac; done <$(firstword $(MAKEFILE_LIST))

build: ## static binaries into bin/
	$(STATIC) -o bin/ $(PROGRAMS)

demo: build ## a small cluster on this machine, and what it can do
	bin/middleway demo --write bin/demo.pcapng

# FLOODING packages flood the machine's queues with datagrams. They run after the others, one by one: a flood is loss for everybody.
FLOODING := */bench|*/cmd/middleway|*/lab/perf
# CLUSTERS packages have the longest tests. They start first, so that no processor is idle at the end.
CLUSTERS := */test/*|*/lab/playground|*/lab/demo
# Tests that wait most of their time say t.Parallel.
TESTRUN  := $(GOTEST) -parallel 8 -timeout 9m

test: ## all tests, at most 10 minutes (PACKAGES=./stack/... TESTFLAGS='-run Name -v' for some)
	@others= clusters= flooding=; packages=$$($(GO) list $(PACKAGES)) && test -n "$$packages" || exit 1; \
	for package in $$packages; do \
		case $$package in $(FLOODING)) flooding="$$flooding $$package" ;; $(CLUSTERS)) clusters="$$package $$clusters" ;; *) others="$$others $$package" ;; esac; \
	done; \
	failed=0; \
	if test -n "$$clusters$$others"; then $(TESTRUN) $(TESTFLAGS) $$clusters $$others || failed=1; fi; \
	if test -n "$$flooding"; then $(TESTRUN) $(TESTFLAGS) -p 1 $$flooding || failed=1; fi; \
	exit $$failed

demo-asuser: asuser ## make demo as an ordinary user whose root has only Go, make, sh and libc (needs root to become one)
	bin/asuser --minimal -- make demo

test-asuser: asuser ## make test in the same way
	bin/asuser --minimal --with '$(PODPROGRAMS)' -- make test TESTFLAGS='$(TESTFLAGS)' PACKAGES='$(PACKAGES)'

test-tun-only: tunonly ## demo and tests in a kernel that has nothing but tun (TUNONLY=all in full; needs user-mode-linux, gcc)
	bin/tunonly $(if $(filter all,$(TUNONLY)),-all -limit 90m)

test-tun-only-noipv6: tunonly ## the same in a kernel without IPv6, with fewer tests
	bin/tunonly -ipv6=false

race: export CGO_ENABLED = 1
race: ## all tests under the race detector (needs cgo and a C compiler)
	$(GOTEST) -race -timeout 20m $(TESTFLAGS) $(PACKAGES)

bench: ## benchmarks, then benchstat's table and which comparisons were noisy (BENCH=regexp picks, BENCHFLAGS='-count 5 -round-time 1s')
	@mkdir -p bin
	@{ $(GOTEST) -run '^$$' -bench '$(BENCH)' $(TESTFLAGS) ./bench $(BENCHFLAGS) || echo "make bench: go test failed"; } | tee bin/bench.txt
	@echo; $(GO) tool benchstat -col /path -filter '/path:/./' bin/bench.txt
	@sed -n 's/.*noisy: /noisy: /p' bin/bench.txt
	@! grep '^make bench: go test failed' bin/bench.txt

fuzz: ## each fuzz target for FUZZTIME (30s), one after another, up to the first finding
	@set -e; \
	for file in $$(grep -rl --include='*_test.go' '^func Fuzz' . | sort); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$file"); do \
			echo "== $$target in $${file%/*}, $(FUZZTIME)"; \
			$(GOTEST) -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $(TESTFLAGS) "$${file%/*}"; \
		done; \
	done

soak: ## the long tests (names with Soak) and the big sizes, up to an hour per package
	MIDDLEWAY_SOAK=1 $(GOTEST) -run Soak -timeout 60m -v $(TESTFLAGS) $(PACKAGES)

lint: ## gofmt, go vet, staticcheck, go.mod is tidy and its modules are what go.sum says
	@files="$$("$$($(GO) env GOROOT)/bin/gofmt" -l .)"; test -z "$$files" || { echo "gofmt -w these: $$files" >&2; exit 1; }
	$(GO) vet $(FLAGS) ./...
	GOFLAGS="$$GOFLAGS $(FLAGS)" $(GO) tool staticcheck ./...
	$(GO) mod tidy -diff
	$(GO) mod verify
	cd deploy && $(GO) vet $(FLAGS) ./... && $(GO) mod tidy -diff
	cd test/kube && $(GO) vet $(FLAGS) ./... && $(GO) mod tidy -diff

image: ## bin/middleway-image.tar: a container image, for containerd, Docker and kind (IMAGE=name, ARCHES=amd64 for one architecture)
	set -e; for arch in $(ARCHES); do \
		mkdir -p bin/linux_$$arch; \
		GOOS=linux GOARCH=$$arch $(STATIC) -o bin/linux_$$arch/ $(PROGRAMS); \
	done
	cd deploy && $(GO) run $(FLAGS) ./cmd/image -name '$(IMAGE)' -version '$(VERSION)' -created '$(CREATED)' \
		-arch "$$(echo $(ARCHES) | tr ' ' ,)" -programs ../bin -o ../bin/middleway-image.tar

kube-up: kube $(if $(filter middleway mixed,$(NETWORK)),image) $(if $(filter mixed,$(NETWORK)),bin/middleway-mixed.yaml) ## a real Kubernetes cluster on this machine, as root (NODES=3 FAMILY=dual NETWORK=mixed CLUSTER=name BESIDE=kube-proxy,coredns)
	bin/kube up --nodes $(NODES) --family $(FAMILY) --network $(NETWORK) --beside '$(BESIDE)' --cluster $(CLUSTER)

bin/middleway-mixed.yaml: $(wildcard deploy/chart/*.yaml deploy/chart/templates/*)
	cd deploy && $(GO) run $(FLAGS) ./cmd/manifest -set nodeSelector.network=middleway -set toFlannel.nodeSelector.network=leaving >../$@

kube-down: kube ## take it down
	bin/kube down --cluster $(CLUSTER)

e2e: kube ## Kubernetes' own tests against it (SUITE=rest, or FOCUS='DNS should' SKIP=… PROCS=4; without, those of conformance)
	bin/kube e2e --cluster $(CLUSTER) --suite '$(SUITE)' --focus '$(FOCUS)' --skip '$(SKIP)' $(if $(PROCS),--procs $(PROCS))

manifest: ## deploy/middleway.yaml, deploy/uninstall.yaml and docs/configuration.md, from the chart and the sources
	cd deploy && $(GO) run $(FLAGS) ./cmd/manifest

test-deploy: ## tests of deploy/: image, chart and manifests
	cd deploy && $(GOTEST) $(TESTFLAGS) ./...

kube-build: kube ## build what a real Kubernetes cluster consists of, once, into a cache (COMPONENTS=server for etcd and kube-apiserver)
	bin/kube build $(COMPONENTS)

test-apiserver: kube ## node daemons beside a real API server, which is built once, into the same cache
	bin/kube build server
	MIDDLEWAY_APISERVER="$${MIDDLEWAY_KUBE_DIR:-$${XDG_CACHE_HOME:-$$HOME/.cache}/middleway-kube}/bin" $(GOTEST) $(TESTFLAGS) -run 'TestCluster|TestAPIServer' ./test/apiserver ./test/rootless

test-kube: ## tests of what builds and runs real clusters, test/kube
	cd test/kube && $(GOTEST) $(TESTFLAGS) ./...

cross: ## build everything and the binaries for linux/amd64 and linux/arm64, check what is peculiar to arm64, tests too
	set -e; for arch in amd64 arm64; do \
		export GOOS=linux GOARCH=$$arch; \
		$(GO) build $(FLAGS) ./...; \
		mkdir -p bin/linux_$$arch; \
		$(STATIC) -o bin/linux_$$arch/ $(PROGRAMS); \
	done
	GOOS=linux GOARCH=arm64 $(GO) vet $(FLAGS) -asmdecl -buildtag -directive -framepointer -unsafeptr ./...

tidy: ## format, and bring go.mod and go.sum in line with the code
	"$$($(GO) env GOROOT)/bin/gofmt" -w .
	$(GO) mod tidy
	cd deploy && $(GO) mod tidy
	cd test/kube && $(GO) mod tidy

clean: ## remove bin/ and left-over test binaries and profiles
	rm -rf bin
	find . -name .git -prune -o \( -name '*.test' -o -name '*.prof' \) -type f -exec rm -f {} +

tunonly:
	$(GO) build $(FLAGS) -o bin/ ./test/tunonly

kube:
	cd test/kube && $(GO) build $(FLAGS) -ldflags=-s -o ../../bin/kube .

asuser:
	@test "$$(id -u)" = 0 || { echo 'make *-asuser becomes an ordinary user by itself and needs root for that; as an ordinary user call make test or make demo' >&2; exit 1; }
	$(GO) build $(FLAGS) -o bin/ ./test/asuser
