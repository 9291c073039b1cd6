#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Finds out what a kernel offers by compiling one file for each question against its headers:
# OUT/varia_probes.h has `#define ADAPTOR_HAS_NAME` for each probe optional-NAME.c that compiles.
#
# A probe that fails is an answer only if the compiler complains of NAME, and only if tree.c, which
# includes the same headers, compiles. Anything else is an error: a tree that can't compile must not
# poll like one that lacks something. What required-NAME.c polls for has to be there.
#
# usage: probe.sh ARCH KDIR OUT [PROBES]
#   ARCH    as the kernel's make has it: arm64 or x86
#   KDIR    a kernel's headers
#   OUT     a directory; made if it is missing
#   PROBES  a directory of probes, by default those beside this script
# environment: CROSS_COMPILE and CC, as in build.sh
set -eu
unset MAKEFLAGS MFLAGS O

if [ $# -lt 3 ]; then
	echo "usage: $0 arm64|x86 KDIR OUT [PROBES]" >&2
	exit 2
fi
arch=$1 kdir=$2
probes=${4:-$(cd "$(dirname "$0")" && pwd)/probes}
mkdir -p "$3/probes"
out=$(cd "$3" && pwd)
work=$out/probes
rm -f "$work"/*.o "$work"/*.c "$out/varia_probes.h"
cp "$probes"/*.c "$probes"/*.h "$work/"

objects=$(cd "$work" && for file in *.c; do echo "${file%.c}.o"; done)
# shellcheck disable=SC2086 # a list
echo obj-m := $objects >"$work/Kbuild"
# shellcheck disable=SC2086 # a list
make -k -s -C "$kdir" M="$work" ARCH="$arch" CROSS_COMPILE="${CROSS_COMPILE-}" \
	-j"${JOBS:-2}" ${CC:+"CC=$CC"} $objects >"$work/log" 2>&1 || true

if [ ! -f "$work/tree.o" ]; then
	cat "$work/log" >&2
	echo "$0: $kdir can't compile a file that only includes the kernel's headers: install the whole headers of this kernel, and its compiler" >&2
	exit 1
fi
{
	echo "/* SPDX-License-Identifier: GPL-2.0-only */"
	echo "/* What this kernel offers, found by compiling: made by probe.sh. */"
} >"$work/header"
missing=
for file in "$work"/optional-*.c "$work"/required-*.c; do
	[ -f "$file" ] || continue
	name=$(basename "$file" .c)
	what=${name#*-}
	if [ -f "$work/$name.o" ]; then
		case $name in
		optional-*) echo "#define ADAPTOR_HAS_$(echo "$what" | tr '[:lower:]' '[:upper:]')" >>"$work/header" ;;
		esac
	elif ! sed -n "s/.*$name\.c:.*error://p" "$work/log" | grep -q "$what"; then
		cat "$work/log" >&2
		echo "$0: the probe $name fails for another reason than a missing $what: the kernel's tree or the probe is broken" >&2
		exit 1
	else
		case $name in
		required-*) missing="$missing $what" ;;
		esac
	fi
done
if [ -n "$missing" ]; then
	echo "$0: the kernel of $kdir lacks what the module needs:$missing; Linux 7.2 has it" >&2
	exit 1
fi
mv "$work/header" "$out/varia_probes.h"
