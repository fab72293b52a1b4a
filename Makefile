# The same words for people and for CI. `make help` lists them.
#
# CARGO_TARGET_DIR   cargo's target folder (default: target)
# RAFT_ACTOR_CACHE   what is kept between builds: the RocksDB archive, cargo-deny, cargo-fuzz, peers (default: ~/.cache/raft-actor)
# PORT               the first of three ports (default: 7001)
# QUICK=1            the short form of order, kill, crash, api, cluster, failover, catchup, hostile, docs-check, sim,
#                    model, mutants, fuzz, instructions, peers and the benches
# FUZZ_S, TARGETS    how many seconds each fuzzer runs; which of them, by their files' names in fuzz/targets
# PEERS              beside whom peers measures: etcd,nats,... (default: all that can be had)
# SEEDS, SEED        how many fates sim lives through; or one of them, step by step; SEED is crash's, api's and cluster's too

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
PORT ?= 7001
ROUNDS ?= $(if $(QUICK),5,50)
SEEDS ?= 2000
# Which build order, kill, crash, api, cluster and the demo's script run: release, or dev with debug assertions.
PROFILE ?= release
PROGRAMS := $(TARGET)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))

export CARGO_TARGET_DIR := $(TARGET)
# Programs that measure write their figures here, and print them as `FIGURE area.name value unit floor ok|missed`.
export FIGURES_DIR := $(TARGET)/figures
# These are handed on by value where they are wanted.
unexport ROUNDS PROFILE SEEDS SEED

# Cargo.lock is committed: what is built is what it says, and a change to it is a change that somebody made.
LOCKED := $(if $(wildcard Cargo.lock),--locked)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: ## check what the build needs; install it where that is possible, else say how
	@scripts/setup

.PHONY: setup-lint
setup-lint:
	@scripts/setup lint

.PHONY: rocksdb
rocksdb: setup ## the RocksDB archive, built once into the cache, and cargo told of it
	@scripts/rocksdb-archive

.PHONY: archive-env
archive-env: setup ## print the exports that give the archive to your own project: eval "$(make -s archive-env)"
	@scripts/rocksdb-archive --env

.PHONY: build
build: rocksdb ## all programs, optimized
	cargo build $(LOCKED) --profile $(PROFILE) --workspace --bins

# The nodes, and the harness that starts them. Always the whole workspace: a part of it would unify other features of the
# dependencies, and compile those again.
.PHONY: programs
programs: rocksdb
	@mkdir -p $(FIGURES_DIR)
	cargo build $(LOCKED) --profile $(PROFILE) --workspace --bins

.PHONY: demo
demo: programs ## three nodes and the chat on node 1; without a terminal, a scripted conversation
	@if [[ -t 0 && -t 1 ]]; then PROGRAMS=$(PROGRAMS) PORT=$(PORT) scripts/demo; else $(PROGRAMS)/harness demo --port $(PORT); fi

.PHONY: chat
chat: rocksdb ## ID=1|2|3: one node of such a cluster in this terminal
	@cargo build $(LOCKED) --profile $(PROFILE) --workspace --bins
	@PROGRAMS=$(PROGRAMS) PORT=$(PORT) ID=$(ID) scripts/chat

.PHONY: test
test: rocksdb ## every test, then the short forms of all that measures and looks for bugs
	@$(MAKE) programs PROFILE=dev
	DEMO_CHAT=$(TARGET)/debug/demo-chat cargo test $(LOCKED) --workspace --no-fail-fast
	@$(MAKE) order PROFILE=dev QUICK=1
	@$(MAKE) kill PROFILE=dev QUICK=1
	@$(MAKE) crash PROFILE=dev QUICK=1
	@$(MAKE) api PROFILE=dev QUICK=1
	@$(MAKE) cluster PROFILE=dev QUICK=1
	@$(MAKE) failover PROFILE=dev QUICK=1
	@$(MAKE) catchup PROFILE=dev QUICK=1
	@$(MAKE) hostile PROFILE=dev QUICK=1
	@$(MAKE) docs-check PROFILE=dev QUICK=1
	@$(MAKE) sim QUICK=1
	@$(MAKE) model QUICK=1
	@$(MAKE) mutants QUICK=1
	@$(MAKE) fuzz QUICK=1
	@$(MAKE) instructions QUICK=1

.PHONY: order
order: programs ## 10,000 messages from three nodes at once, through kills: one order, none lost, none twice
	$(PROGRAMS)/harness order $(if $(QUICK),--quick)

.PHONY: kill
kill: programs ## ROUNDS=50: a random node killed with -9 under load; no acknowledgement may be lost
	$(PROGRAMS)/harness kill --rounds $(ROUNDS)

# Mounting needs root, and failing system calls need strace. The short form skips by name what it cannot do.
.PHONY: crash
crash: programs ## PART=kill|unsynced|tear|damage|fail|full|opening: folders crashed on purpose; nothing acknowledged may be lost
	@scripts/setup crash$(if $(QUICK), || true)
	$(PROGRAMS)/crash $(PART) $(if $(QUICK),--quick) $(if $(SEED),--seed $(SEED))

.PHONY: api
api: programs ## PART=once|linear|cursor|slow|big|diverge|first|first-from-nothing: what users rely on, under kills
	$(PROGRAMS)/api $(PART) $(if $(QUICK),--quick) $(if $(SEED),--seed $(SEED))

.PHONY: cluster
cluster: programs ## RUNS=3: members come, go and are replaced under load; killed at every step; and those who must not come in
	$(PROGRAMS)/cluster $(PART) $(if $(QUICK),--quick) $(if $(RUNS),--runs $(RUNS)) $(if $(SEED),--seed $(SEED))

# Network namespaces and resetting connections need root. The short form skips by name what it cannot do.
.PHONY: failover
failover: programs ## ROUNDS=50: the leader killed, or its host silent: how soon the next proposal is committed
	$(PROGRAMS)/wire failover $(if $(QUICK),--quick,--rounds $(ROUNDS))

.PHONY: catchup
catchup: programs ## GIB=2: a snapshot of that size, three times broken off, while the others commit at full load
	$(PROGRAMS)/wire catchup $(if $(QUICK),--quick,--mib $$(($(or $(GIB),2) * 1024)))

.PHONY: hostile
hostile: programs ## strangers, broken members and crowds: each refused by its name, nothing of it in the protocol, the leader stays
	$(PROGRAMS)/wire hostile $(if $(QUICK),--quick)

.PHONY: docs-check
docs-check: programs ## every command in README and docs; DOCS="docs/start.md ...": only in these
	@scripts/setup docs
	$(PROGRAMS)/docs $(if $(QUICK),--quick) $(DOCS)

.PHONY: checkers
checkers: rocksdb ## HISTORIES=50000: api's judge of histories beside a search through every order, and another checker
	@mkdir -p $(FIGURES_DIR)
	HISTORIES=$(or $(HISTORIES),50000) $(if $(SEED),SEED=$(SEED)) cargo test $(LOCKED) --package tests --lib linear -- --nocapture

# What needs nothing but the protocol is built by itself: no RocksDB, no actix.
.PHONY: sim
sim: setup ## SEEDS=2000: the protocol under lying disks and networks; SEED=n: one fate, step by step
	@mkdir -p $(FIGURES_DIR)
	cargo build $(LOCKED) --release --package sim
ifdef SEED
	$(TARGET)/release/sim --seed $(SEED)
else ifdef QUICK
	$(TARGET)/release/sim --quick
	$(TARGET)/release/sim --twice 5
else
	@# What an interrupted run has done counts only for the lines that it ran.
	@state=$(TARGET)/sim/$$(cat $$(find raft-core/src sim/src -name '*.rs' | sort) | sha256sum | cut -c1-16); \
	set -x; $(TARGET)/release/sim --seeds $(SEEDS) --state "$$state"; rm -rf "$$state"
	$(TARGET)/release/sim --twice 50
endif

.PHONY: model
model: setup ## every order of messages, writes and crashes, within bounds
	@mkdir -p $(FIGURES_DIR)
	cargo build $(LOCKED) --release --package model
	$(TARGET)/release/model check $(if $(QUICK),--quick)

.PHONY: explore
explore: setup ## MODEL=election PORT=7001: walk through a model's states in a browser
	cargo build $(LOCKED) --release --package model
	$(TARGET)/release/model explore $(or $(MODEL),election) --port $(PORT)

.PHONY: sequences
sequences: rocksdb ## SEQUENCES=10000: random writes, snapshots and reopenings; every log store against a vector
	@mkdir -p $(FIGURES_DIR)
	SEQUENCES=$(or $(SEQUENCES),10000) cargo test $(LOCKED) --package raft-storage --lib model_test
	@count=$(or $(SEQUENCES),10000); if ((count >= 2000)); then word=ok; else word=missed; fi; \
	echo "FIGURE storage.sequences_equal $$count count 2000 $$word" | tee $(FIGURES_DIR)/sequences.txt; [[ $$word == ok ]]

.PHONY: mutants
mutants: setup ## bugs put into a copy of the protocol, and which instrument kills each
	@mkdir -p $(FIGURES_DIR)
	scripts/mutants $(if $(QUICK),--quick)

.PHONY: fuzz
fuzz: setup ## FUZZ_S=600 seconds each, TARGETS="step ...": any bytes for what a peer sends and a disk holds; QUICK=1: seconds
	@scripts/fuzz $(if $(QUICK),--quick) $(TARGETS)

.PHONY: script
script: setup ## FILE=path: run a golden script and show what it makes happen
	@SCRIPT=$(abspath $(FILE)) cargo test $(LOCKED) --quiet --package raft-core --test scripts -- --nocapture

# Behind ARGS criterion's words: a name, or --save-baseline before, and later --baseline before.
.PHONY: bench-micro
bench-micro: rocksdb ## ARGS="codec": core, codec, storage, mailboxes and delivery, each by itself, timed
	cargo bench $(LOCKED) --package parts --bench micro -- $(ARGS)

# Not the whole workspace: it is built in release for this alone where nothing else is measured.
.PHONY: instructions
instructions: rocksdb ## instructions and allocations for each commit, part by part, under valgrind; KEEP=1: what they may be from now on
	@scripts/setup bench$(if $(QUICK), || true)
	@mkdir -p $(FIGURES_DIR)
	cargo build $(LOCKED) --release --package parts --bin instructions
	$(TARGET)/release/instructions $(if $(QUICK),--quick) $(if $(KEEP),--keep)

.PHONY: bench
bench: rocksdb ## ONLY="three,TLS": throughput, latency and CPU of clusters of processes, and what they are judged by
	@mkdir -p $(FIGURES_DIR)
	cargo build $(LOCKED) --release --workspace --bins
	$(TARGET)/release/bench matrix $(if $(QUICK),--quick) $(if $(ONLY),--only "$(ONLY)")

.PHONY: bench-storage
bench-storage: rocksdb ## the log store alone, beside a plain file with fdatasync; QUICK=1: shorter, 10^6 entries
	@mkdir -p $(FIGURES_DIR)
	cargo build $(LOCKED) --release --workspace --bins
	$(TARGET)/release/bench storage $(if $(QUICK),--quick)

# A workspace of its own, and a folder of its own in the target folder. An interrupted run goes on where it was.
.PHONY: peers
peers: rocksdb ## beside etcd, NATS JetStream, Redis, openraft and d-engine, in turns with ours; half an hour, QUICK=1: minutes
	@mkdir -p $(FIGURES_DIR)
	cargo build $(LOCKED) --profile fast --package bench --bins
	scripts/peers --bench $(TARGET)/fast/bench $(if $(QUICK),--quick) $(if $(PEERS),--peers $(PEERS))

.PHONY: fmt
fmt: setup-lint ## format the code
	cargo fmt --all

.PHONY: lint
lint: setup-lint rocksdb ## format, clippy, licences and sources, raft-core's purity, the scripts
	cargo fmt --all --check
	@for file in scripts/* .ci/run; do bash -n "$$file"; done
	scripts/purity
	scripts/mutants --check
	cargo clippy $(LOCKED) --workspace --all-targets -- -D warnings
	scripts/cargo-deny licenses bans sources

.PHONY: audit
audit: setup ## known vulnerabilities, where the advisory database can be had
	scripts/audit

.PHONY: doc
doc: rocksdb ## the API documentation, warnings denied
	RUSTDOCFLAGS="-D warnings" cargo doc $(LOCKED) --workspace --no-deps
