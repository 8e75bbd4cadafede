# make        set up, execute every notebook (the committed ones stay as they are), and make the site of them in build/
# make test   everything that CI runs          make lab        JupyterLab on the notebooks
# make quick  tests for minutes of work: no notebooks, no browser, no training
# make lint   style, types, bandit             make notebooks  execute in place, to commit the outputs
# make fuzz  thousands of wrong inputs, where make test tries a few
# make test-transformers48  what is about transformers, on the oldest one that is supported
# make site   the site, from the committed notebooks and the docstrings, into build/site (nothing is executed)
# make live  the explorer without a kernel, a page of its own in build/live (its runtime comes by npm)
# make test-extras  each extra by itself: installed alone, does it bring all that it is for?
# make test-assignments  what nbgrader makes of them: what students see, and what right and wrong answers get
# make slides  slides of every lesson into build/slides, for a projector without a network (reveal.js comes by npm)
# make assignments  the notebooks to hand in into build/assignments (or COURSE=folder): source/ for instructors, release/
# make figures  the figure of the README and the gallery anew, with the weights that are here, to commit them
# make dist   wheel and sdist into dist/, as a tag releases them
# make audit  bandit on the package, and known faults of its dependencies (asks PyPI, and fails where it cannot)
# make bench  speed against open_clip and against other methods, with nothing else running
.DEFAULT_GOAL := run
.DELETE_ON_ERROR:
.PHONY: run test test-extras test-transformers48 quick fuzz lab lint notebooks figures site live slides assignments test-assignments audit dist bench clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
EXECUTED := $(NOTEBOOKS:notebooks/%=build/executed/%)
SOURCES := $(shell find gradeclip_utils -name '*.py') $(wildcard data/*)
NBCONVERT := $(BIN)/jupyter-nbconvert --execute --ExecutePreprocessor.timeout=1800 \
	--ExecutePreprocessor.kernel_name=python3 --ExecutePreprocessor.store_widget_state=False \
	--ExecutePreprocessor.record_timing=False

run: $(EXECUTED)
	$(BIN)/python docs/site/build.py build $(EXECUTED)
	@echo "$(words $(EXECUTED)) notebooks executed; read them in build/: open build/notebooks/README.html"

build/executed/%.ipynb: notebooks/%.ipynb $(STAMP) $(SOURCES)
	@mkdir -p $(@D)
	$(NBCONVERT) --to notebook --output-dir $(@D) $<

$(STAMP): pyproject.toml CITATION.cff  # which says that there is a new release, of which pip shall know
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "gradeclip needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[notebooks,site,test]'
	@touch $@

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# Tests wait for browsers, kernels and clocks a sixth of the time: one process more than there are cores.
test: $(STAMP)
	$(PYTEST) --numprocesses $$($(BIN)/python -c 'import os; print(1 + (os.cpu_count() or 1))') --no-loadscope-reorder tests

# $(call beside,FOLDER): an environment in front of the packages of .venv, which it shares; what is installed there stays
# out of .venv, and out of JupyterLab.
define beside
	$(BIN)/python -m venv --without-pip $(1)
	$(1)/bin/python -c 'import pathlib, sys, sysconfig; pathlib.Path(sysconfig.get_path("purelib"), "shared.pth").write_text(f"import site; site.addsitedir({sys.argv[1]!r})\n")' \
		"$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
endef

OLD := .venv-transformers48
$(OLD)/installed: $(STAMP)
	$(call beside,$(OLD))
	$(BIN)/python -m pip --python $(OLD)/bin/python install --quiet --no-deps \
		'transformers~=4.48.0' 'tokenizers~=0.21.0' 'huggingface_hub<1'
	@touch $@

test-transformers48: $(OLD)/installed
	$(subst $(BIN),$(OLD)/bin,$(PYTEST)) tests/towers/test_huggingface.py tests/towers/test_huggingface_text.py \
		tests/models/test_huggingface.py tests/models/test_convert.py

EXTRAS := .venv-extras
$(EXTRAS)/installed: $(STAMP)
	$(call beside,$(EXTRAS))
	$(BIN)/python -m pip --python $(EXTRAS)/bin/python install --quiet 'gradeclip[assignments,bench]'  # the others are in .venv
	@touch $@

test-extras: $(EXTRAS)/installed
	$(subst $(BIN),$(EXTRAS)/bin,$(PYTEST)) tests/test_extras.py

quick: $(STAMP)
	$(PYTEST) -m 'not slow and not browser' tests

fuzz: $(STAMP)
	GRADECLIP_FUZZ=3000 $(PYTEST) tests/test_fuzz.py

lab: $(STAMP)  # root is who one is in a container, and JupyterLab wants to be told that this is meant
	$(BIN)/jupyter-lab $(if $(filter 0,$(shell id -u)),--allow-root) --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks

BANDIT := $(BIN)/bandit --quiet --recursive gradeclip_utils --skip B101,B105,B403,B404

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BANDIT)

notebooks: $(STAMP)
	$(NBCONVERT) --to notebook --inplace $(NOTEBOOKS)

figures: $(STAMP)
	$(BIN)/python docs/figures.py
	$(BIN)/python -m gradeclip_utils card --gallery data/gallery.png

site: $(STAMP)
	rm -rf build/site  # pages of what is no more
	$(BIN)/python docs/site/build.py build/site

$(VENV)/live: pyproject.toml $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[live]'
	@touch $@

live: $(VENV)/live
	$(BIN)/python docs/live/build.py build/live
	@echo "serve it, for example with: python3 -m http.server --directory build/live"

slides: $(STAMP)
	$(BIN)/python docs/slides/build.py build/slides

GRADING := .venv-assignments
$(GRADING)/installed: pyproject.toml $(STAMP)
	$(call beside,$(GRADING))
	$(BIN)/python -m pip --python $(GRADING)/bin/python install --quiet 'gradeclip[assignments]'  # gradeclip is there
	ln -sfn ../../../$(VENV)/share/jupyter/nbconvert $(GRADING)/share/jupyter/nbconvert  # templates of feedback
	@touch $@

COURSE ?= build/assignments

# Solutions are executed first, so that what is handed out can be solved with the model that is here. nbgrader looks for
# alembic on the path.
assignments: $(GRADING)/installed
	@mkdir -p '$(COURSE)'
	cp notebooks/assignments/nbgrader_config.py '$(COURSE)'
	for name in $(basename $(notdir $(wildcard notebooks/assignments/*.ipynb))); do \
		$(NBCONVERT) --to notebook --output-dir '$(COURSE)'/source/$$name notebooks/assignments/$$name.ipynb && \
		(cd '$(COURSE)' && PATH="$(CURDIR)/$(GRADING)/bin:$$PATH" nbgrader generate_assignment --force $$name) || exit 1; \
	done

test-assignments: $(GRADING)/installed
	$(subst $(BIN),$(GRADING)/bin,$(PYTEST)) -k 'not solutions_pass' tests/test_assignments.py

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
	GRADECLIP_LIVE_LIMIT=300 $(BIN)/python -m pytest -s -k redraws tests/test_live.py

clean:
	rm -rf build dist
