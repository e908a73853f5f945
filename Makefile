# Targets are documented where they stand; `make help` prints them.
# Each does all it needs: nothing has to be made by hand first.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
GO          ?= go
PREFIX      ?= /usr/local
CACHE       := $(or $(LUCID_CACHE),$(XDG_CACHE_HOME),$(HOME)/.cache)
GOFUMPT     := mvdan.cc/gofumpt@v0.12.0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
VERSION     := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
LDFLAGS     := -s -w -X main.commit=$(VERSION)
# The heap of the host's programs is a few hundred KiB, and where the host gives huge pages unasked it would be two of
# them: to clear these costs more than all else that the Go runtime does at its start (package runtime, GODEBUG).
LDHOST      := -X runtime.godebugDefault=disablethp=1
FUZZTIME    ?= 10m

export CGO_ENABLED := 0
# Go 1.27's implementation of encoding/json: it looks at a type when it meets one, that of Go 1.26 at all of config.json's at once.
export GOEXPERIMENT := $(if $(filter go1.26%,$(shell $(GO) env GOVERSION)),jsonv2)

.DEFAULT_GOAL := all
.PHONY: all help bin containerd-v2 containerd-client demo demo-lab test unit kvm-lab validation count bench lint fuzz install e2e-lab e2e-kvm rootfs clean FORCE

all: bin kernel initramfs ## binaries into bin/, kernel and initramfs into guest/out/

help: ## this list
	@grep -hE '^[a-z][a-z0-9/.-]*:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  %-14s %s\n", $$1, $$2}'

bin: bin/lucid bin/lucid-agent bin/containerd-shim-lucid-v2 ## the Go binaries

bin/%: FORCE
	@mkdir -p bin
	$(GO) build -trimpath -ldflags='$(LDFLAGS) $(if $(filter lucid-agent,$*),,$(LDHOST))' -o $@ ./cmd/$*

# What the end-to-end tests of the shim drive, besides Debian's containerd. Without what would need C libraries.
CONTAINERD_VERSION := v2.4.2
containerd-v2: bin/containerd-v2/.$(CONTAINERD_VERSION) ## containerd v2 and its ctr, for tests of the shim

bin/containerd-v2/.$(CONTAINERD_VERSION): Makefile
	@mkdir -p $(@D)
	GOBIN=$(abspath $(@D)) GOFLAGS= $(GO) install -trimpath -ldflags='-s -w' -tags no_btrfs,no_devmapper,no_zfs,no_aufs \
	  github.com/containerd/containerd/v2/cmd/{containerd,ctr}@$(CONTAINERD_VERSION)
	@touch $@

# containerd's own tests of its client, and runc's shim to compare with. Built in a copy of the module, with its own versions of everything.
# In the lab their daemon needs more than the four seconds that they give it: what they wait for at most is ten times as long.
bin/containerd-v2/.client-$(CONTAINERD_VERSION): Makefile
	@mkdir -p $(@D)
	GOBIN=$(abspath $(@D)) GOFLAGS= $(GO) install -trimpath -ldflags='-s -w' github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2@$(CONTAINERD_VERSION)
	dir=$$(GOFLAGS= $(GO) mod download -json github.com/containerd/containerd/v2@$(CONTAINERD_VERSION) | sed -n 's/^\t"Dir": "\(.*\)",$$/\1/p') && \
	tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && cp -r --no-preserve=mode "$$dir/." "$$tmp" && \
	sed -i 's/WithTimeout(ctx, /&10*/' "$$tmp"/integration/client/{client,container,container_linux}_test.go && \
	GOFLAGS= $(GO) -C "$$tmp" test -c -trimpath -ldflags='-s -w' -mod=mod -o $(abspath $(@D))/client.test ./integration/client
	@touch $@

# RUNTIME=lucid,runc runs both.
RUNTIME ?= lucid
containerd-client: all bin/lab containerd-v2 bin/containerd-v2/.client-$(CONTAINERD_VERSION) ## containerd's tests of its client against the shim, in the lab
	$(GO) run ./test/containerdclient -runtime $(RUNTIME)

-include guest/guest.mk
-include test/lab/lab.mk

demo: all ## a real Debian container in a VM on this machine's /dev/kvm
	$(GO) run ./test/demo

demo-lab: all bin/lab ## the same on an emulated machine, for a host without /dev/kvm
	$(GO) run ./test/demo -lab

test: lint unit kvm-lab count e2e ## everything that CI runs

lint: ## gofumpt, go vet, staticcheck
	@out=$$($(GO) run $(GOFUMPT) -l .); if [ -n "$$out" ]; then echo "gofumpt: not formatted (fix: go run $(GOFUMPT) -w .):"; echo "$$out"; exit 1; fi
	$(GO) vet ./... && $(GO) vet -tags e2e ./test/e2e/...
	$(GO) run $(STATICCHECK) -tags e2e ./...

unit: kernel ## unit tests and the import rules, under -race
	$(GO) run ./test/gate unit

kvm-lab: all bin/lab ## the tests of single packages that need a KVM, in the lab
	$(GO) run ./test/gate lab

e2e: all bin/lab ## end to end: in the lab, and on this machine's /dev/kvm if it has one
	$(GO) run ./test/e2e/run

validation: all bin/lab ## opencontainers/runtime-tools' validation programs against lucid, in the lab
	$(GO) run ./test/validation

count: all bin/lucid-bench ## instructions of a boot and sizes, held to bench/limits.txt
	bin/lucid-bench check

# Rounds, cases and time limit of the parts, and what each test of files has. On a software KVM a start takes 20 s, on a busy one minutes: the limits keep the whole
# below 20 minutes, and what they cut off the report says. Cases come in this order, and those that are quick leave their share to the rest.
BENCH_N         ?= 5
BENCH_CASES     ?= boot sizes micro p9 start exec
BENCH_LIMIT     ?= 6m
BENCH_LAB_N     ?= 4
BENCH_LAB_CASES ?= micro start exec 9p streams density 9p-cache
BENCH_LAB_LIMIT ?= 12m
BENCH_BUDGET    ?= 1s
# The newest kernel of Debian 12, whose KVM maps a clone's pages before it runs; the lab's own is the one that comes with it.
BENCH_NEW       ?= linux-image-6.12-amd64
BENCH_NEW_CASES ?= start
BENCH_NEW_LIMIT ?= 2m
bench: all bin/lab bin/lucid-bench ## the quick benchmark here and in two labs, below 20 minutes; the page is bench/out/report.html
	rm -rf bench/out && mkdir -p bench/out
	@# A copy: nothing that is being measured may be built anew. A part that fails is no reason to lose the others.
	stage=$$(mktemp -d) && trap 'rm -rf "$$stage"' EXIT && mkdir "$$stage/guest" && cp -r bin "$$stage/" && cp -r guest/out "$$stage/guest/" && \
	tar=$$($(GO) run ./test/rootfs/path) && status=0 && \
	{ "$$stage/bin/lucid-bench" -n $(BENCH_N) -limit $(BENCH_LIMIT) -rootfs $$tar -out bench/out/here.jsonl $(BENCH_CASES) || status=1; } && \
	export LAB_TIMEOUT=16m LAB_MEM=8192 LAB_OUT=$(CURDIR)/bench/out LAB_MEMFILES="$$stage $$tar" && \
	{ "$$stage/bin/lab" -- \
	  "$$stage/bin/lucid-bench -n $(BENCH_LAB_N) -limit $(BENCH_LAB_LIMIT) -budget $(BENCH_BUDGET) -rootfs $$tar -out $(CURDIR)/bench/out/lab.jsonl $(BENCH_LAB_CASES)" || status=1; } && \
	{ LAB_KERNEL=$(BENCH_NEW) "$$stage/bin/lab" -- \
	  "$$stage/bin/lucid-bench -n $(BENCH_LAB_N) -limit $(BENCH_NEW_LIMIT) -rootfs $$tar -out $(CURDIR)/bench/out/new.jsonl $(BENCH_NEW_CASES)" || status=1; } && \
	bin/lucid-bench report -out bench/out/report.html bench/out/*.jsonl && exit $$status
	@echo "bench/out/report.html"

fuzz: ## each fuzz target for FUZZTIME (default 10m), one after another
	@for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "== $$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p; \
	  done; done

install: all ## into $(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/lucid
	install -m 755 bin/lucid bin/containerd-shim-lucid-v2 $(DESTDIR)$(PREFIX)/bin/
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
	  $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	bin/lucid man >$(DESTDIR)$(PREFIX)/share/man/man1/lucid.1
	bin/lucid completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/lucid
	bin/lucid completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_lucid
	bin/lucid completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/lucid.fish
	install -m 644 guest/out/vmlinux guest/out/initramfs.cpio $(DESTDIR)$(PREFIX)/share/lucid/

clean: ## what make built here (the caches outside the tree stay)
	rm -rf bin guest/out test/lab/out
