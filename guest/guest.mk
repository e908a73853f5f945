# Targets of guest/, included by the top Makefile. docs/guest-kernel.md explains them.

.PHONY: kernel initramfs count-boot count-boot-hello profile-boot

# The Go program knows what is up to date: it hashes all inputs.
kernel:
	go run ./guest/cmd/kernel-build

initramfs: guest/out/initramfs.cpio

guest/out/initramfs.cpio: bin/lucid-agent
	go run ./guest/cmd/initramfs-build -init $< -out $@

# COUNT_BOOT_MAX makes it fail when a boot takes more instructions.
COUNT_BOOT_MAX ?= 0
count-boot: kernel guest/out/initramfs.cpio
	go run ./guest/cmd/count-boot -max $(COUNT_BOOT_MAX)

# The kernel and Go's runtime alone, without the agent.
count-boot-hello: kernel
	go run ./guest/cmd/count-boot -hello

profile-boot: kernel guest/out/initramfs.cpio
	go run ./guest/cmd/count-boot -profile 60
