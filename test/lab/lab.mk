# The lab: `make lab CMD='…'` runs a command on an emulated host with a real
# /dev/kvm. docs/lab.md.

.PHONY: lab lab-check lab-bin

bin/lab: lab-bin
lab-bin:
	CGO_ENABLED=0 go build -o bin/lab ./test/lab

lab: lab-bin
	@bin/lab -- "$$CMD"
lab: export CMD

lab-check: lab-bin
	@bin/lab -check
