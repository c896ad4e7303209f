# SPDX-License-Identifier: GPL-2.0
#
#   make                    the module for Debian's kernel, build/stock/dm-thin-rs.ko, and the tools
#   make KERNEL=test        the module for the test kernel (KERNEL=uml, uml-test: for user-mode Linux)
#   make KDIR=/path         the module for a configured and built kernel tree of your own
#   make tools              the tools alone, build/bin/
#   make demo               the driver at work, on Debian's kernel in a virtual machine
#   make check              formatting, lints, and rules of this source tree
#   make test               everything that can be tested
#   make fuzz               the tools on random and damaged input, for five minutes
#   make soak               the same steps on this driver and the one in C, for hours
#   make bench              the driver's speed next to the C driver's
#   make bench-tools        the tools' speed next to the distribution's thin-provisioning-tools
#   make install            the module and the tools, into this machine (DESTDIR= elsewhere)
#   make clean              removes build/
#
# The kernels, and the compilers they were built with, come from scripts/setup, which is called when
# something is missing. Documentation/building.rst says more.

KERNEL ?= stock
build := $(CURDIR)/build

.DEFAULT_GOAL := all
.PHONY: all module tools demo check test fuzz soak bench bench-tools install uninstall clean

all: module tools

ifdef KDIR

module:
	scripts/build-module --kdir "$(KDIR)" --output "$(build)/kdir"

else

module:
	scripts/build-module --kernel "$(KERNEL)" --output "$(build)/$(KERNEL)"

endif

tools:
	scripts/build-tools

demo:
	scripts/demo

check:
	scripts/check

test:
	scripts/test

fuzz:
	cd tools && DM_THIN_RS_FUZZ_SECONDS=$${DM_THIN_RS_FUZZ_SECONDS:-300} \
		cargo test --offline --profile fuzz --target-dir "$(build)/tools" --package thin-tools --test fuzz -- --nocapture

soak:
	scripts/soak

bench:
	scripts/bench

bench-tools: tools
	scripts/bench-tools

install:
	KERNEL="$(if $(KDIR),kdir,$(KERNEL))" DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" scripts/install

uninstall:
	DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" scripts/install --remove

clean:
	rm -rf --one-file-system -- "$(build)"
