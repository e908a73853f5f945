# Targets of guest/, included by the top Makefile. docs/guest-kernel.md explains them.

.PHONY: kernel initramfs count-boot count-boot-hello profile-boot

KERNEL_INPUTS := $(wildcard guest/kernel/*.fragment guest/kernel/*.skip guest/kernel/*.edits)

# Up to date by time, for a cold build takes minutes; what decides is a hash of
# all inputs, which the program takes.
guest/out/vmlinux: $(KERNEL_INPUTS)
	$(GO) run ./guest/cmd/kernel-build

kernel: ## the guest kernel, from the cache if the inputs are known
	$(GO) run ./guest/cmd/kernel-build

initramfs: guest/out/initramfs.cpio ## the agent as an initramfs

guest/out/initramfs.cpio: bin/lucid-agent
	$(GO) run ./guest/cmd/initramfs-build -init $< -out $@

# COUNT_BOOT_MAX makes it fail when a boot takes more instructions.
COUNT_BOOT_MAX ?= 0
count-boot: guest/out/vmlinux guest/out/initramfs.cpio ## guest instructions from the kernel's entry to the agent's hello
	$(GO) run ./guest/cmd/count-boot -max $(COUNT_BOOT_MAX)

count-boot-hello: guest/out/vmlinux ## the same with the smallest Go init instead of the agent
	$(GO) run ./guest/cmd/count-boot -hello

profile-boot: guest/out/vmlinux guest/out/initramfs.cpio ## where they go, by step and by function
	$(GO) run ./guest/cmd/count-boot -profile 60
