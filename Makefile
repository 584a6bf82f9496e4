# make demo    the whole job on this machine: no root, no Docker, no account
# make test    lint, types and all tests against real sshd, rsync and Docker engines (root; it installs what is missing)
# make simulate N=10000   whole batches with everything that can go wrong, by seed; SEED=S starts elsewhere
# make crashpoints   kill the controller, and fail its disk, at every durable step of a batch, and resume
# make endless   one eval that prints 10 GB (in make test it prints 2)
# make fuzz N=100000   results with anything wrong in them: no exception may escape a reader
# make soak    300 hosts on loopback, 3,000 short evals, random faults, 15 minutes at most; ARGS="--hosts 20 --minutes 1"
# make bench   the numbers of docs/benchmarks.md, measured here
# make lint    ruff and mypy alone
# make clean   everything that the above made, in this directory
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c '$(NEW_ENOUGH)' 2>/dev/null && echo "$$python" && break; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ARGS ?=
N ?= 10000
# Test processes at once: most tests wait for a host, not for a processor.
WORKERS ?= 3
# So many failures at most are run once more, alone; 0 for none.
SECOND_CHANCES ?= 4
SEED ?= 0

# Debian and Ubuntu packages, and the program by which each is recognised.
DEMO_NEEDS := git:git rsync:rsync openssh-client:ssh
TEST_NEEDS := $(DEMO_NEEDS) openssh-server:sshd docker.io:dockerd iptables:iptables debootstrap:debootstrap zstd:zstd \
	procps:pkill util-linux:unshare strace:strace iproute2:ip nftables:nft faketime:faketime

export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

.PHONY: demo test simulate fuzz crashpoints endless soak bench lint clean install demo-needs test-needs

demo: demo-needs $(INSTALLED)
	@$(BIN)/fleet demo $(ARGS)

test: test-needs lint
	@select=()
	if [ "$$(id -u)" != 0 ] && [ -z "$${CI:-}" ]; then
		echo "not root: the tests on container hosts are left out; 'sudo make test' runs them too"
		select=(-m "not containers and not root")
	fi
	$(BIN)/pytest -n $(WORKERS) --dist loadfile "$${select[@]}" $(ARGS) && exit 0 || code=$$?
	# Real processes, real clocks, other work on the machine: a few that failed beside others are run once more, alone, and named.
	[ "$$code" = 1 ] || exit "$$code"
	mapfile -t failed < <($(BIN)/python -m tests.support.last_failed)
	[ "$${#failed[@]}" -le $(SECOND_CHANCES) ] || exit 1
	echo "once more, alone:"
	printf '  %s\n' "$${failed[@]}"
	$(BIN)/pytest "$${failed[@]}"
	echo "failed beside others, and passed alone:"
	printf '  %s\n' "$${failed[@]}"

simulate: $(INSTALLED)
	@$(BIN)/python -m tests.simulation --count $(N) --seed $(SEED)

crashpoints: test-needs $(INSTALLED)
	@FLEET_TEST_ALL_CRASHPOINTS=1 $(BIN)/pytest -q -s tests/faults/test_controller_crash.py \
		tests/faults/test_controller_disk.py $(ARGS)

endless: test-needs $(INSTALLED)
	@FLEET_TEST_ENDLESS_GB=10 $(BIN)/pytest -q --timeout 900 tests/faults/test_eval.py -k endless $(ARGS)

fuzz: $(INSTALLED)
	@FLEET_FUZZ=$$(( $(N) / 11 + 1 )) $(BIN)/pytest -p no:cacheprovider --timeout 3600 tests/test_reader_fuzz.py tests/test_kind_fuzz.py

soak: test-needs $(INSTALLED)
	@$(BIN)/python -m tests.soak $(ARGS)

bench: demo-needs $(INSTALLED)
	@$(BIN)/python -m tests.bench $(ARGS)

lint: $(INSTALLED)
	@$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	@"$(PYTHON)" -c '$(NEW_ENOUGH)' || {
		echo "fleet needs Python 3.11 or later, and found none. Type: sudo apt-get install -y python3.11 python3.11-venv"
		exit 1
	}
	[ -x $(BIN)/python ] || "$(PYTHON)" -m venv $(VENV) || {
		echo "this Python cannot make a virtual environment. Type: sudo apt-get install -y python3-venv"
		rm -rf $(VENV)
		exit 1
	}
	echo "installing into $(VENV)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock --editable '.[dev]'
	touch $@

# Missing packages are named, with the command that installs them; as root the tests' are installed.
demo-needs:
	@missing=()
	for need in $(DEMO_NEEDS); do command -v "$${need#*:}" >/dev/null || missing+=("$${need%%:*}"); done
	if [ "$${#missing[@]}" != 0 ]; then
		echo "missing on this machine: $${missing[*]}. Type: sudo apt-get install -y $${missing[*]}"
		exit 1
	fi

test-needs:
	@missing=()
	for need in $(TEST_NEEDS); do command -v "$${need#*:}" >/dev/null || missing+=("$${need%%:*}"); done
	[ "$${#missing[@]}" != 0 ] || exit 0
	install="apt-get install -y --no-install-recommends $${missing[*]}"
	if [ "$$(id -u)" != 0 ]; then
		echo "missing on this machine: $${missing[*]}. Type: sudo apt-get update && sudo $$install"
		exit 1
	fi
	echo "installing $${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	# A service that starts by itself would be one that the tests do not stop.
	policy=
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		policy=/usr/sbin/policy-rc.d
		printf '#!/bin/sh\nexit 101\n' >"$$policy"
		chmod +x "$$policy"
		trap 'rm -f "$$policy"' EXIT
	fi
	apt-get update -q
	# Newer releases have the docker client in a package of its own.
	if [[ " $${missing[*]} " == *" docker.io "* ]] && apt-cache show docker-cli >/dev/null 2>&1; then install+=" docker-cli"; fi
	$$install

clean:
	@rm -rf $(VENV) *.egg-info build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find fleet tests remote_scripts -name __pycache__ -type d -exec rm -rf {} +
