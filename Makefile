# SPDX-License-Identifier: LGPL-2.1-or-later
# The front door; Meson builds. As root, on a fresh Debian 12:
#
#   make demo     shows a NodePort in a lab of network namespaces
#   make check    builds, runs every suite, ends with "N passed, N failed, N skipped"
#   make soak     1 000 reloads under load (make check has 30)
#   make bench    measures and writes tests/bench/RESULTS.md
#   make deb      makes the Debian packages weft and weft-dev, in build/deb
#   make deb-check  makes, installs, upgrades and purges them on a clean Debian 12
#   make kernels  the datapath suite on one more kernel: make kernels K=6.1
#
# For daily work: make build, then meson test -C build --suite unit.

BUILD ?= build
K ?= 5.10

.PHONY: all build packages demo check soak bench deb deb-check kernels clean
all: build

packages:
	@tests/install-packages

$(BUILD)/build.ninja: | packages
	meson setup $(BUILD)

build: packages $(BUILD)/build.ninja
	ninja -C $(BUILD)

demo: build
	@tests/demo $(BUILD)

check: packages
	@tests/run

soak: build
	WEFT_BUILD=$(BUILD) WEFT_RELOADS=1000 /usr/bin/python3 -m pytest -q -s -p no:cacheprovider tests/e2e/test_reload_load.py

deb: packages
	@debian/build $(BUILD)/deb

deb-check: packages
	@tests/run deb

kernels: build
	@tests/run kernels --kernel $(K)

bench: build
	@tests/bench/run $(BUILD)

clean:
	rm -rf build build-asan
