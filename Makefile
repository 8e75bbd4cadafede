# make run     set up, execute every notebook and build the site of them in build/ (the committed ones stay as they are)
# make test    the tests, notebooks among them   make lab     JupyterLab on the notebooks
# make quick   tests without notebooks, browser, studies and training
# make lesson NOTEBOOK=06 MODEL=ViT-B-16 PRETRAINED=openai [DATA=coco:FOLDER] [N=5000]   on your own model; N=0: DATA alone
# make replicate MODEL=ViT-B-16 PRETRAINED=openai [DATA=coco:FOLDER]   all lessons on it, and a page: predicted and found
# make lint    style, types, security          make notebooks   execute in place, to commit the outputs
# make fuzz    a thousand drawn inputs each    make weekly  what is built and installed for a release
# make bench   speed as ratios within one run
# make site    the site and the live page, from the committed notebooks, in build/site
# make slides  make assignments  make figures  make dist  make audit   see the recipes below
.DEFAULT_GOAL := run
.DELETE_ON_ERROR:
.PHONY: run test quick weekly lesson replicate fuzz lab lint notebooks figures site live slides assignments test-assignments audit dist bench clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
EXECUTED := $(NOTEBOOKS:notebooks/%=build/executed/%)
SOURCES := $(shell find gradeclip_utils studies -name '*.py') $(wildcard data/*)
NBCONVERT := $(BIN)/jupyter-nbconvert --execute --ExecutePreprocessor.timeout=1800 \
	--ExecutePreprocessor.kernel_name=python3 --ExecutePreprocessor.store_widget_state=False \
	--ExecutePreprocessor.record_timing=False --CoalesceStreamsPreprocessor.enabled=True

CORES = $(shell $(BIN)/python -c 'import os; print(os.cpu_count() or 1)')

# A notebook takes one thread, so that as many run side by side as there are cores. Tables of claims lie beside what is
# executed: the last digits of the committed ones are those of one processor.
run: $(STAMP)
	@$(MAKE) --no-print-directory --jobs=2 live build/executed/done
	$(BIN)/python docs/site/build.py build $(EXECUTED)
	@echo "$(words $(EXECUTED)) notebooks executed; read them in build/: open build/notebooks/README.html"

build/executed/done: $(NOTEBOOKS) $(STAMP) $(SOURCES)
	@GRADECLIP_RESULTS='$(CURDIR)/build/results' $(BIN)/python -m studies.execute $(NOTEBOOKS) --out $(@D)
	@touch $@

$(STAMP): pyproject.toml CITATION.cff  # which says that there is a new release, of which pip shall know
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "gradeclip needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[notebooks,site,test]'
	@touch $@

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# Tests wait for browsers, kernels and clocks a sixth of the time: one process more than there are cores.
test: $(STAMP)
	$(PYTEST) --numprocesses $$((1 + $(CORES))) --no-loadscope-reorder --durations 20 --durations-min 5 -m 'not weekly' tests

quick: $(STAMP)
	$(PYTEST) -m 'not slow and not browser' tests

weekly: $(STAMP)
	$(PYTEST) -m weekly tests

fuzz: $(STAMP)
	GRADECLIP_FUZZ=1000 $(PYTEST) tests/fuzz.py  # inputs of each test

ON_MODEL = $(if $(MODEL),--model '$(MODEL)') $(if $(PRETRAINED),--pretrained '$(PRETRAINED)') $(if $(DATA),--data '$(DATA)') $(if $(N),--n '$(N)')

lesson: $(STAMP)
	$(BIN)/python -m studies $(NOTEBOOK) $(ON_MODEL)

replicate: $(STAMP)  # the same call goes on after a kill
	$(BIN)/python -m studies all $(ON_MODEL)

lab: $(STAMP)  # root is who one is in a container, and JupyterLab wants to be told that this is meant
	$(BIN)/jupyter-lab $(if $(filter 0,$(shell id -u)),--allow-root) --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks

BANDIT := $(BIN)/bandit --quiet --recursive gradeclip_utils --skip B101,B105,B403,B404,B615

FRONT := gradeclip_utils/plots/front/pixels.js gradeclip_utils/plots/front/view.* gradeclip_utils/panels/desk.js \
	docs/live/*.js docs/live/*.css

lint: $(STAMP)
	@if command -v npx >/dev/null; then npx --yes prettier@3.10.1 --print-width 100 --check $(FRONT); \
		else echo "npm is missing: JavaScript and CSS are not checked"; fi
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BANDIT)

notebooks: $(STAMP)
	$(BIN)/python -m studies.execute $(NOTEBOOKS)

figures: $(STAMP)
	$(BIN)/python docs/figures.py

site: live
	rm -rf build/site  # pages that are gone
	$(BIN)/python docs/site/build.py build/site
	@if test -d build/live; then cp -r build/live build/site/live; fi

# The live page needs ONNX Runtime for the browser, which comes by npm.
live: $(STAMP)
	@if command -v npm >/dev/null; then $(BIN)/python docs/live/build.py build/live; \
		else echo "npm is missing: the live page is left out (Debian: apt-get install npm)"; fi

slides: $(STAMP)
	$(BIN)/python docs/slides/build.py build/slides

# $(call beside,FOLDER): an environment in front of the packages of .venv, which it shares; what is installed there stays
# out of .venv, and out of JupyterLab.
define beside
	$(BIN)/python -m venv --without-pip $(1)
	$(1)/bin/python -c 'import pathlib, sys, sysconfig; pathlib.Path(sysconfig.get_path("purelib"), "shared.pth").write_text(f"import site; site.addsitedir({sys.argv[1]!r})\n")' \
		"$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
endef

GRADING := .venv-assignments
$(GRADING)/installed: pyproject.toml $(STAMP)
	$(call beside,$(GRADING))
	$(BIN)/python -m pip --python $(GRADING)/bin/python install --quiet 'gradeclip[assignments]'  # gradeclip is there
	ln -sfn ../../../$(VENV)/share/jupyter/nbconvert $(GRADING)/share/jupyter/nbconvert  # templates of feedback
	@touch $@

COURSE ?= build/assignments

# Solutions are executed first, so that what is handed out can be solved here. nbgrader looks for alembic on the path.
assignments: $(GRADING)/installed
	@mkdir -p '$(COURSE)'
	cp docs/assignments/nbgrader_config.py '$(COURSE)'
	for file in docs/assignments/instructor/*.ipynb; do \
		name=$$(basename "$$file" .ipynb) && \
		$(NBCONVERT) --to notebook --output-dir '$(COURSE)'/source/$$name "$$file" && \
		(cd '$(COURSE)' && PATH="$(CURDIR)/$(GRADING)/bin:$$PATH" nbgrader generate_assignment --force $$name) || exit 1; \
	done

test-assignments: $(GRADING)/installed
	$(subst $(BIN),$(GRADING)/bin,$(PYTEST)) tests/test_assignments.py

audit: $(STAMP)
	$(BIN)/python -m pip install --quiet pip-audit
	$(BANDIT)
	@mkdir -p build
	$(BIN)/python -m pip freeze --exclude-editable > build/installed.txt
	$(BIN)/pip-audit --strict --disable-pip --no-deps --requirement build/installed.txt  # strict: what was not asked is not clean

dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m pip install --quiet --no-deps 'legrad-torch~=1.1'  # it would bring an open_clip of 2023
	$(BIN)/python -m benchmarks

clean:
	rm -rf build dist
