.PHONY: setup setup-cluster demo cluster cluster-down test test-cluster quick check crds image bench clean
PY := .venv/bin/python
# Debian's `su` leaves out where nft, bird and sysctl are.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

setup:
	@scripts/setup

setup-cluster:
	@scripts/setup cluster

demo: setup
	@.venv/bin/calipy lab demo

# A real Kubernetes cluster on this machine; `make cluster-down` removes it, also after a crash.
cluster: NODES := 3
cluster: PROXY := iptables
cluster: NETWORK := calipy
cluster: setup setup-cluster
	@$(PY) -m tests.cluster up --nodes $(NODES) --proxy $(PROXY) --network $(NETWORK)

cluster-down: setup
	@$(PY) -m tests.cluster down

# The image of agent, sidecar, init container and controllers, for any container engine, made without one.
image: setup
	@$(PY) -m image

# Every tier that this machine can run. With CI=true a tier that can't run is a failure.
test: check
	@[ "$$(id -u)" != 0 ] || scripts/setup cluster
	@$(PY) scripts/test

# A real Kubernetes; its programs are built first where they are missing, which takes minutes once.
test-cluster: setup setup-cluster
	@$(PY) -m tests.cluster.binaries
	@$(PY) -m pytest -q tests/cluster

# Compiled tests are kept, whatever the environment says of bytecode: compiling them costs more than half of them do.
quick test test-cluster: export PYTHONDONTWRITEBYTECODE :=
quick test test-cluster: export PYTHONPYCACHEPREFIX := $(CURDIR)/build/pycache

# What is run at each save: laws on fewer examples, smaller crowds. `make test` tries them whole.
quick: export CALIPY_EFFORT := quick
quick: setup
	@$(PY) -m pytest -q -n $$(($$(nproc) + 1)) --dist worksteal tests/unit tests/contract  # some wait, and need no core

check: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache

# The CustomResourceDefinitions, from the kinds of calipy/resources and what their docstrings say.
crds: setup
	@$(PY) scripts/crds crds

bench: setup
	@$(PY) -m bench

clean:
	rm -rf .venv build
