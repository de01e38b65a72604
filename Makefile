# Everything a developer or a user of the checkout runs. CARGO_TARGET_DIR is honoured.
SHELL := /bin/bash
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
RELEASE := $(CARGO_TARGET_DIR)/release
LAB := $(RELEASE)/lab
SHIPPED := $(CARGO_TARGET_DIR)/dist

.PHONY: up down build packages dist test bench lint fuzz vagrant-up vagrant-down vagrant-test

up: build ## a two-node cluster with the example workload; writes ./kubeconfig
	$(LAB) up --kubeconfig $(CURDIR)/kubeconfig

down: ## ends the lab and leaves nothing
	if [ -x $(LAB) ]; then $(LAB) down; fi
	rm -f $(CURDIR)/kubeconfig

build: packages ## release build of every program
	cargo build --release --workspace --bins

packages: ## the Debian packages the lab uses, installed where missing
	tests/packages

dist: ## the release of this commit for this architecture, as a tarball and a .deb, in target/dist-out
	control/windlass/dist/make $(CARGO_TARGET_DIR)/dist-out

test: packages ## every suite: unit, property, component, lab
	tests/suites

bench: packages ## figures of SPECIFICATION.md, as ratios, of the programs as they are shipped
	cargo build --profile dist --workspace --bins
	$(SHIPPED)/lab bench

lint: packages ## formatting, clippy, documentation, dependencies, spelling; what CI checks first
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --quiet
	tests/lint

fuzz: packages ## every fuzz target for a minute; FUZZ_SECONDS and FUZZ_TARGETS change that
	tests/fuzz/run

vagrant-up: ## virtual machines (1 server, 2 workers; SERVERS, WORKERS, SUITE, see vagrant/lab) with this commit's release, installed by install.sh
	vagrant/lab up

vagrant-down: ## ends them and leaves the box
	vagrant/lab down

vagrant-test: ## the suite on them over SSH, with each step's seconds; status 77 and "skipped" where there is nothing to run them on
	vagrant/lab test
