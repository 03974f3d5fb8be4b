# The commands of the README. Each installs what it needs and lacks (scripts/setup), then builds and runs.

NAME ?=

# Where rustup puts cargo, and where programs for root live: not in every path.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help demo test test-zero-copy update-guest soak loom lint bench guard guard-update package test-package clean

help:
	@echo 'make demo           the load balancer at work in an emulated network (root or sudo)'
	@echo 'make test           the whole test suite, the release soak, the model checks and the guest included (root or sudo)'
	@echo 'make test-zero-copy zero copy, the lowest kernel and one too old, in an emulated machine (root or sudo)'
	@echo 'make update-guest   pin the newest kernels and QEMU for that machine'
	@echo 'make soak           10^8 packets through two workers, every frame accounted for'
	@echo 'make loom           every interleaving of the rings, under loom'
	@echo 'make lint           formatting, clippy, each feature alone, documentation, licences'
	@echo 'make bench [NAME=…] measure afx beside its peers; NAME picks measurements, "A B" two (root or sudo)'
	@echo 'make guard          count the instructions of the hot paths, and fail where they cost more than they did'
	@echo 'make guard-update   make what they cost now the baselines'
	@echo 'make package        the Debian package, target/debian/afx-lb_VERSION_ARCHITECTURE.deb'
	@echo 'make test-package   installs that package in namespaces, and runs its services there (root or sudo)'
	@echo 'make clean          remove what was built'

demo:
	scripts/setup test
	scripts/as-root cargo run --locked --release -p afx-lb -- demo

test:
	scripts/setup test
	scripts/test

test-zero-copy:
	scripts/setup test
	scripts/test zero-copy

update-guest:
	scripts/guest update

soak:
	scripts/setup build
	scripts/test soak

loom:
	scripts/setup build
	scripts/test loom

lint:
	scripts/setup build
	scripts/lint

bench:
	scripts/setup bench
	scripts/bench $(NAME)

guard:
	scripts/setup guard
	scripts/guard check

guard-update:
	scripts/setup guard
	scripts/guard update

package:
	scripts/setup package
	scripts/package

test-package:
	scripts/setup test-package
	scripts/test-package

clean:
	cargo clean
