# The lab: an emulated host with a real /dev/kvm. docs/lab.md.

.PHONY: lab lab-check lab-test
# As typed: make would expand the dollar signs that are meant for L1's shell.
lab: override export CMD := $(value CMD)

bin/lab: FORCE
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -o $@ ./test/lab

lab: bin/lab ## CMD='…': run a command in the lab (an emulated host with /dev/kvm)
	@exec bin/lab -- "$$CMD"

lab-check: bin/lab ## prove what the lab's host offers, a line each
	@exec bin/lab -check

lab-test: bin/lab ## PKG=./kvm/... ARGS='-run X -v': build tests here, run them in the lab
	$(GO) test -exec '$(CURDIR)/bin/lab --' $(ARGS) $(or $(PKG),./...)
