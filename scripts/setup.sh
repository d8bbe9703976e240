#!/usr/bin/env bash
# Makes .venv: a Python with torch and JupyterLab, and with what else is asked for: setup.sh [tests]. The tests need
# linters, trainers, a browser and an old Jupyter; the demonstration does not. The Makefile calls it when what it reads
# has changed; running it again repairs what is there.
#
# On Debian as root it installs the system packages it needs, torch among them, and builds the environment on
# the system's Python so that it sees them. Elsewhere it takes PYTHON, else python3 from PATH, and torch from PyPI.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VENV=.venv
readonly WANTED=${1:-}
readonly DEBIAN_PACKAGES=(python3-venv python3-torch python3-sklearn)
# For tests only: a browser for JupyterLab, and an old Jupyter like Colab's.
readonly DEBIAN_TEST_PACKAGES=(chromium python3-ipykernel python3-jupyter-client)
readonly DEBIAN_PYTHON=/usr/bin/python3

say() { printf 'setup: %s\n' "$*"; }

fail() {
	printf 'setup: %s\n' "$@" >&2
	exit 1
}

installed() { dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

# install_packages installs what is not there yet. It returns false where Debian's relatives lack a package, torch most
# of all.
install_packages() {
	local package
	local -a missing=()
	for package in "$@"; do
		installed "$package" || missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	say "installing system packages: ${missing[*]}"
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# install_debian goes on with PyPI, and without some tests, where a package cannot be had.
install_debian() {
	local -a compiler=()
	# NVML is reached through cgo, and so is the race detector.
	command -v gcc >/dev/null || compiler=(gcc libc6-dev)
	install_packages "${DEBIAN_PACKAGES[@]}" ${compiler[@]+"${compiler[@]}"} ||
		say "not every package could be installed; going on with PyPI"
	[ "$WANTED" = tests ] || return 0
	install_packages "${DEBIAN_TEST_PACKAGES[@]}" || say "not every package could be installed; some tests will be skipped"
}

works() { "$1" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; }

brings_torch() { works "$1" && "$1" -c 'import ensurepip, sklearn, torch' 2>/dev/null; }

# choose_python prints the interpreter the environment is built on.
choose_python() {
	if [ -z "${PYTHON:-}" ] && brings_torch "$DEBIAN_PYTHON"; then
		echo "$DEBIAN_PYTHON"
		return
	fi
	local python=${PYTHON:-python3}
	works "$python" || fail "$python is missing or older than 3.11." \
		"Install Python 3.11 or newer, or name one: make setup PYTHON=/path/to/python3"
	"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python cannot make virtual environments." \
		"Install its venv module; on Debian and Ubuntu: apt-get install python3-venv"
	echo "$python"
}

# make_environment keeps an environment that stands on the same interpreter.
make_environment() {
	local python=$1 real
	local -a flags=() # macOS has a bash for which an empty array is unset, hence the + below
	brings_torch "$python" && flags=(--system-site-packages)
	real=$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
	if [ -x "$VENV/bin/python" ] && [ "$(readlink -f "$VENV/bin/python")" = "$real" ]; then
		return
	fi
	say "making $VENV with $python"
	"$python" -m venv --clear ${flags[@]+"${flags[@]}"} "$VENV"
}

# install_torch takes what pip finds. Nothing here needs CUDA: an index of CPU builds, set up for pip, saves gigabytes.
install_torch() {
	"$VENV/bin/python" -c 'import sklearn, torch' 2>/dev/null && return
	say "installing torch and scikit-learn"
	pip_install -r requirements-torch.txt
}

pip_install() { "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

# install_jupyter and install_tools hold numpy where it is: torch was compiled against that one.
install_jupyter() {
	say "installing JupyterLab"
	"$VENV/bin/python" -c 'import numpy; print("numpy==" + numpy.__version__)' >"$VENV/constraints.txt"
	pip_install -c "$VENV/constraints.txt" -r requirements.txt
}

install_tools() {
	say "installing the tools of the tests"
	pip_install -c "$VENV/constraints.txt" -r requirements-tests.txt
}

# install_trainers takes no dependencies, for the reason that requirements-trainers.txt gives.
install_trainers() {
	say "installing transformers and peft"
	pip_install --no-deps -r requirements-trainers.txt
	HF_HUB_OFFLINE=1 "$VENV/bin/python" -c 'import peft, transformers' ||
		fail "transformers and peft do not work with this torch." "Adapt the versions in requirements-trainers.txt."
}

check() {
	"$VENV/bin/python" - <<-'PYTHON'
		import sys, numpy, sklearn.datasets, torch
		digits = sklearn.datasets.load_digits()
		x = torch.from_numpy(digits.data).float() / 16
		loss = torch.nn.functional.cross_entropy(torch.nn.Linear(64, 10)(x), torch.from_numpy(digits.target))
		loss.backward()
		print(f"setup: ready: Python {sys.version.split()[0]}, torch {torch.__version__},",
		      f"numpy {numpy.__version__}, scikit-learn {sklearn.__version__}")
	PYTHON
}

case "$WANTED" in "" | tests) ;; *) fail "setup.sh takes nothing, or tests, not $WANTED" ;; esac
if [ -z "${PYTHON:-}" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	install_debian
fi
command -v go >/dev/null || fail "go is missing. Install Go 1.26 or newer from https://go.dev/dl"
python=$(choose_python)
make_environment "$python"
install_torch
install_jupyter
if [ "$WANTED" = tests ]; then
	install_tools
	install_trainers
fi
check
