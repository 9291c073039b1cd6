#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Builds a module for one kernel: OUT/NAME.ko. Nothing is written outside OUT.
#
# usage: build.sh ARCH KDIR OUT
#   ARCH  arm64 or amd64
#   KDIR  a kernel's headers, such as /usr/src/linux-headers-VERSION
#   OUT   a directory; made if it is missing
# environment:
#   MODULE         the module's directory; its name is the module's. By default
#                  modules/nvgrace-gpu-vfio-pci
#   RUST_OBJECT    rust.o_shipped for ARCH, built earlier by rust/build.sh; else it is built here
#   CROSS_COMPILE  prefix of the compiler for ARCH; by default none is needed, or Debian's
#   CC             the compiler, where the headers don't name it
#   JOBS           parallel jobs of make, 2 by default
#   UNRELEASED_IDS "y" adds the PCI ids that no released kernel's driver lists (docs/kernel.md),
#                  "n", the default, leaves them out
#   WARNINGS       "shown" prints warnings; otherwise they are errors
#   and those of rust/build.sh and probe.sh
# exit status: 77 if the kernel lacks what the module needs, 1 for another failure
set -eu
# Variables of a calling make, such as O, must not reach the kernel's make.
unset MAKEFLAGS MFLAGS O

if [ $# -ne 3 ]; then
	echo "usage: $0 arm64|amd64 KDIR OUT" >&2
	exit 2
fi
arch=$1 kdir=$2
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$3"
out=$(cd "$3" && pwd)

case $arch in
arm64) kernel_arch=arm64 machine=aarch64 prefix=aarch64-linux-gnu- ;;
amd64) kernel_arch=x86 machine=x86_64 prefix=x86_64-linux-gnu- ;;
*)
	echo "$0: unknown architecture $arch: arm64 or amd64" >&2
	exit 2
	;;
esac
unreleased_ids=${UNRELEASED_IDS:-n}
case $unreleased_ids in
y | n) ;;
*)
	echo "$0: UNRELEASED_IDS is \"$unreleased_ids\": set it to y or n" >&2
	exit 2
	;;
esac
if [ ! -f "$kdir/Makefile" ]; then
	echo "$0: $kdir is not a kernel's headers: install linux-headers for $arch" >&2
	exit 1
fi
if [ "$(uname -m)" = $machine ]; then
	prefix=
fi
CROSS_COMPILE=${CROSS_COMPILE-$prefix}
module=$(cd "${MODULE:-$here/modules/nvgrace-gpu-vfio-pci}" && pwd)
unset MODULE

"$here/hardening.sh" "$arch" "$kdir"
# A module with a Kbuild of its own has its own C half and its own probes.
sources=$here/adaptor probes=$here/probes
if [ -f "$module/Kbuild" ]; then
	sources=$module probes=$module/probes
fi
CROSS_COMPILE=$CROSS_COMPILE "$here/probe.sh" $kernel_arch "$kdir" "$out" "$probes"
if [ -z "${RUST_OBJECT:-}" ]; then
	MODULE=$module "$here/rust/build.sh" "$arch" "$out"
	RUST_OBJECT=$out/rust.o_shipped
fi
CROSS_COMPILE=$CROSS_COMPILE "$here/frames.sh" "$arch" "$kdir" "$RUST_OBJECT"

name=$(basename "$module")
source=$out/$name
mkdir -p "$source"
cp "$sources"/*.c "$sources"/*.h "$sources/Kbuild" "$here/adaptor/object.mk" "$source/"
if [ -f "$module/descriptor.h" ]; then
	cp "$module/descriptor.h" "$source/"
fi
cp "$RUST_OBJECT" "$source/rust.o_shipped"
cp "$out/varia_probes.h" "$source/"
# A warning of the compiler, objtool or modpost is an error, unless it is to be shown only. That a
# tool has another version than the one that built the kernel is no fault of the module.
status=0
make -s -C "$kdir" M="$source" ARCH=$kernel_arch CROSS_COMPILE="$CROSS_COMPILE" \
	-j"${JOBS:-2}" ${CC:+"CC=$CC"} VARIA_MODULE="$name" \
	VARIA_UNRELEASED_IDS=$unreleased_ids modules >"$out/$name.log" 2>&1 || status=$?
cat "$out/$name.log" >&2
if [ "${WARNINGS:-}" != shown ] &&
	grep -i warning "$out/$name.log" | grep -qv 'differs from the one used to build the kernel'; then
	status=1
fi
if [ $status -ne 0 ]; then
	echo "$0: the build of $name for $kdir failed or printed warnings: see $out/$name.log" >&2
	exit 1
fi
cp "$source/$name.ko" "$out/$name.ko"
