# What a person does with this checkout. `make help` tells it in a line each.

CARGO ?= cargo
.DEFAULT_GOAL := help
.PHONY: help run test test-agents check bench setup setup-tests

help: ## this text
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: setup ## Hob at work: an agent mends a real bug in a sandbox, and proves it
	@scripts/run.sh

test: setup-tests ## all tests
	$(CARGO) test --workspace --locked --no-fail-fast

test-agents: setup-tests ## the tests that drive external agents, with all of them (fetched from npm)
	HOB_TEST_AGENTS=all $(CARGO) test --package hob-agent --package hob --locked --no-fail-fast --test agents --test real_agents

check: setup ## format, lints and documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --locked --quiet

bench: setup ## the figures of docs/promises.md: a table, and a line of JSON for each
	@scripts/bench.sh

setup: ## installs what is missing (apt; asks for nothing when all is there)
	@scripts/setup.sh

setup-tests:
	@scripts/setup.sh tests
