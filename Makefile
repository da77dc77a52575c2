# `make demo` and `make test` need make and Python 3.11 or newer; everything else goes into .venv, on the first call.
# PYTHON=python3.12 chooses the interpreter that .venv is made with; EXTRAS=train,live adds those extras to `make test`.

comma := ,
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DEV := $(VENV)/.installed-dev$(and $(EXTRAS),-$(subst $(comma),-,$(EXTRAS)))

# The first one that is new enough and can make a virtual environment; else the first one that is new enough.
FIND_PYTHON = for wanted in "import ensurepip, venv" pass; do \
	  for python in python3.13 python3.12 python3.11 python3; do \
	    if $$python -c "import sys; $$wanted; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then \
	      echo $$python; exit; \
	    fi; \
	  done; \
	done

.PHONY: help demo test test-slow lint docs help-files clean

help:
	@echo "make demo        animate the portrait that comes with mimik: demo.mp4"
	@echo "make test        run the fast tests"
	@echo "make test-slow   run the tests that take longer"
	@echo "make lint        check style and types"
	@echo "make docs        build a website of the docs and the references: site/index.html"
	@echo "make help-files  write docs/help/*.txt from the command line itself"
	@echo "make clean       remove .venv and what the tools left"
	@echo "EXTRAS=train adds what training needs (torch) to make test; without it those tests are skipped."
	@echo "EXTRAS=train,live,web,browser adds calls, the web app, and their tests in a Chromium of the system."
	@echo "PYTHON=/path/to/python chooses the interpreter (3.11 or newer) that .venv is made with."

# What is installed in .venv already is used as it is.
demo: | $(VENV)/bin/pip
	@test -x $(BIN)/mimik || $(MAKE) --no-print-directory $(VENV)/.installed
	@$(BIN)/mimik demo -o demo.mp4 --force

# Compiled modules are kept, whatever the environment says: the suites start many processes.
test test-slow: export PYTHONDONTWRITEBYTECODE :=

test: $(DEV)
	@$(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadfile

# -vv names each test before it runs, so that a crash in native code is a crash in something.
test-slow: $(DEV)
	@$(BIN)/python -m pytest -m slow -vv --durations=10

lint: $(DEV)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

docs: $(VENV)/.installed
	@$(BIN)/python -c "import mkdocs, pdoc" 2>/dev/null || $(PIP) install -e ".[docs]"
	@$(BIN)/python tools/make_docs.py site

help-files: $(DEV)
	@$(BIN)/python tests/test_readme.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The stamps are newer than pyproject.toml when .venv holds what it asks for.
$(VENV)/.installed: pyproject.toml | $(VENV)/bin/pip
	@echo "Installing mimik into $(VENV); the first time this downloads about 200 MB."
	@$(PIP) install -e .
	@touch $@

$(DEV): pyproject.toml | $(VENV)/bin/pip
	@echo "Installing mimik and its test tools into $(VENV); the first time this downloads about 250 MB."
	@$(PIP) install -e ".[dev$(and $(EXTRAS),$(comma)$(EXTRAS))]"
	@touch $@ $(VENV)/.installed

$(VENV)/bin/pip:
	@python="$(PYTHON)"; test -n "$$python" || python=$$($(FIND_PYTHON)); \
	if test -z "$$python"; then \
	  echo "mimik needs Python 3.11 or newer and found none; install it, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; \
	  exit 1; \
	fi; \
	if ! version=$$("$$python" -c "import sys; print('%d.%d' % sys.version_info[:2]); sys.exit(sys.version_info < (3, 11))" 2>/dev/null); then \
	  echo "mimik needs Python 3.11 or newer, but $$python is $${version:-no Python}; name another: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; \
	  exit 1; \
	fi; \
	if ! "$$python" -c "import ensurepip, venv" 2>/dev/null; then \
	  echo "$$python cannot make virtual environments; install its venv package (Debian and Ubuntu: sudo apt install python$$version-venv) and run make again." >&2; \
	  exit 1; \
	fi; \
	echo "Making $(VENV) with $$python (Python $$version)."; \
	"$$python" -m venv --clear $(VENV)
