# Everything a developer runs; `make help` lists it. What needs an environment sets it up first.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

# Tools come from the virtual environment and .tools, never from the machine.
VENV     := $(CURDIR)/.venv
BIN      := $(VENV)/bin
READY    := .venv/.outlast-ready
TESTS    := .venv/.outlast-tests-ready
GOLANGCI_VERSION := v2.15.0
GOLANGCI := .tools/golangci-lint-$(GOLANGCI_VERSION)/golangci-lint

# NVIDIA marks entry points deprecated in the header that go-nvml brings along; nothing of ours is meant.
export CGO_CFLAGS ?= -O2 -g -Wno-deprecated-declarations

COMMIT := $(shell git rev-parse --short HEAD 2>/dev/null)
TAG    := $(patsubst v%,%,$(shell git describe --tags --exact-match 2>/dev/null))
LDFLAGS := -s -w $(if $(COMMIT),-X main.commit=$(COMMIT)) $(if $(TAG),-X main.version=$(TAG))

# As a user has it whose shell has the environment active and Outlast in PATH.
ACTIVE := VIRTUAL_ENV="$(VENV)" PATH="$(CURDIR):$(BIN):$$PATH"

FUZZ_INPUTS ?= 50000x
PYTHON_CODE := training/worker tests scripts packaging $(wildcard packaging)

##@ Use
.PHONY: demo
demo: kernel ## run the quick-start notebook, train eight models, show where the results are
	@$(ACTIVE) $(BIN)/python scripts/demo.py

.PHONY: lab
lab: kernel ## open JupyterLab with the kernel and the quick-start notebook
	@mkdir -p build/lab
	@test -e build/lab/quickstart.ipynb || ./outlast notebook quickstart -o build/lab/quickstart.ipynb
	@cd build/lab && $(ACTIVE) exec $(BIN)/jupyter lab --ip=127.0.0.1 --MultiKernelManager.default_kernel_name=outlast \
		$$(test "$$(id -u)" != 0 || echo --allow-root) $(LAB_FLAGS) quickstart.ipynb

##@ Build
.PHONY: setup
setup: $(TESTS) ## make .venv with all that the targets need
$(TESTS): scripts/setup.sh requirements.txt requirements-torch.txt requirements-tests.txt requirements-trainers.txt
	bash scripts/setup.sh tests
	touch $(READY) $@

.PHONY: setup-demo
setup-demo: $(READY) ## make .venv with torch and JupyterLab alone, all that demo and lab need
$(READY): scripts/setup.sh requirements.txt requirements-torch.txt
	bash scripts/setup.sh
	touch $@

.PHONY: build
build: ## build ./outlast; only NVML is reached through cgo, names and sockets are Go's own
	go build -trimpath -tags netgo,osusergo -ldflags '$(LDFLAGS)' -o outlast .

.PHONY: kernel
kernel: setup-demo build ## make the kernel selectable in .venv's Jupyter
	@$(ACTIVE) ./outlast install --sys-prefix

.PHONY: wheel
wheel: setup ## build dist/*.whl for Linux and macOS, x86-64 and arm64
	for target in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64; do \
		OUTLAST_TARGET=$$target $(BIN)/python -m build --wheel --no-isolation --outdir dist . ; done

##@ Check
.PHONY: test
test: test-go fuzz test-python ## run all tests

.PHONY: test-go
test-go: setup build ## Go tests, with the race detector and without cgo
	$(ACTIVE) go test -race -shuffle=on -timeout 10m ./...
	$(ACTIVE) CGO_ENABLED=0 go test -shuffle=on -timeout 10m ./...

.PHONY: test-python
test-python: setup build ## the worker module, and the built binary from end to end
	$(ACTIVE) $(BIN)/pytest training/worker/tests tests

.PHONY: fuzz
fuzz: ## fuzz every target with FUZZ_INPUTS inputs (50000x)
	bash scripts/fuzz.sh $(FUZZ_INPUTS)

.PHONY: bench
bench: setup build ## run the benchmarks
	go test -run '^$$' -bench . -benchmem ./...
	for script in scripts/bench*.py; do test ! -e "$$script" || $(ACTIVE) $(BIN)/python "$$script"; done

.PHONY: lint
lint: setup $(GOLANGCI) ## run all linters, on what each platform compiles
	$(GOLANGCI) run
	CGO_ENABLED=0 $(GOLANGCI) run
	go vet ./...
	CGO_ENABLED=0 GOOS=windows go vet ./...
	CGO_ENABLED=0 GOOS=darwin go vet ./...
	go mod tidy -diff
	$(BIN)/ruff check $(PYTHON_CODE) notebooks
	$(BIN)/ruff format --check $(PYTHON_CODE)

.PHONY: format
format: setup $(GOLANGCI) ## put Go and Python code into the form that lint wants
	$(GOLANGCI) fmt
	$(BIN)/ruff check --fix $(PYTHON_CODE)
	$(BIN)/ruff format $(PYTHON_CODE)

$(GOLANGCI):
	GOBIN=$(CURDIR)/$(@D) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

##@ Other
.PHONY: clean
clean: ## remove what was built, but not .venv, .tools and your notebooks in build/lab
	rm -rf outlast build/demo .pytest_cache .ruff_cache

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z].*:.*## / {split($$1, t, ":"); printf "  make %-12s %s\n", t[1], $$2}' $(MAKEFILE_LIST)
