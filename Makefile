# Every target prepares what it needs: a machine with Python (3.11 or newer) and make is enough.
# make PYTHON=python3.12 <target>   chooses the Python of a new .venv
# make test ARGS="-n 0 -k gru"      passes other arguments to pytest than two processes, a file of tests in one

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?= -n 2 --dist loadfile --no-loadscope-reorder

# What `make demo` installs; 'legato[mujoco]' and the like are written '.[mujoco]' here.
DEMO   := .

PIP    := $(BIN)/python -m pip --disable-pip-version-check --no-input install -qq --no-compile -c constraints.txt

# Pyright looks for a newer version of itself at every start; it need not.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

# Each of the many commands that tests start would compile JAX's modules anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test learning lint format readme docs

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.base ## install the package and run the demo
	@$(BIN)/legato demo

test: lint ## install the development tools, check style and types, run the tests
	@$(BIN)/python -m pytest $(ARGS)

learning: $(VENV)/.dev ## run the slow learning tests, which `make test` leaves out
	@LEGATO_LEARNING=1 $(BIN)/python -m pytest $(ARGS) tests/learning

lint: $(VENV)/.dev ## check style (ruff) and types (pyright)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.dev ## sort imports, mend what ruff can mend, lay out the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

readme: $(VENV)/.dev ## write the README's table of algorithms anew
	@PYTHONPATH=. $(BIN)/python docs/readme_table.py

docs: $(VENV)/.docs ## build the documentation into site/, where a broken link or an undocumented name fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html; with search: $(BIN)/python -m http.server --directory site"

# --- the environment, made once and again when what it is made from changes -------------------------------------

$(VENV)/.base: pyproject.toml constraints.txt | $(VENV)/.created
	@echo "installing legato into $(VENV) (once, about a minute)"
	@$(PIP) -e '$(DEMO)' || { echo "legato: the installation failed, see above; the same command starts it again" >&2; exit 1; }
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.created
	@echo "installing legato and its development tools into $(VENV) (once, about a minute)"
	@$(PIP) -e '.[dev]' || { echo "legato: the installation failed, see above; the same command starts it again" >&2; exit 1; }
	@touch $@

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/.created
	@echo "installing legato and what builds its documentation into $(VENV) (once, about a minute)"
	@$(PIP) -e '.[docs]' || { echo "legato: the installation failed, see above; the same command starts it again" >&2; exit 1; }
	@touch $@

$(VENV)/.created:
	@command -v '$(PYTHON)' >/dev/null || \
	  { echo "legato: there is no '$(PYTHON)' here; install Python 3.11 or newer, or name one: make PYTHON=..." >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "legato: needs Python 3.11 or newer, but $(PYTHON) is $$('$(PYTHON)' -V 2>&1); name another: make PYTHON=python3.12" >&2; exit 1; }
	@'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "legato: $(PYTHON) comes without venv; install it (often a package called python3-venv), or name another: make PYTHON=..." >&2; exit 1; }
	@'$(PYTHON)' -m venv --clear $(VENV)
	@touch $@
