#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# A test that the proof of freedom from panics works: an object with a planted panic must be
# refused, and by name.
#
# usage: rust/planted.sh ARCH OUT, with the environment of build.sh
set -eu

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$2"
if FEATURES=plant-panic "$here/build.sh" "$1" "$2" 2>"$2/planted.log"; then
	echo "$0: an object with a reachable panic was accepted" >&2
	exit 1
fi
if ! grep -q varia_a_panic_is_reachable "$2/planted.log"; then
	cat "$2/planted.log" >&2
	echo "$0: the build failed, but not because of the panic" >&2
	exit 1
fi
if [ -f "$2/rust.o_shipped" ]; then
	echo "$0: a refused object was left behind" >&2
	exit 1
fi
echo "the planted panic was refused"
