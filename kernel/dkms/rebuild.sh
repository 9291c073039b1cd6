#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Builds a shipped Rust object from the shipped source and compares the two, byte by byte.
# objects/built-with names the versions of the tools that give the same bytes.
#
# usage: kernel/dkms/rebuild.sh arm64|amd64 OUT, with the environment of kernel/rust/build.sh
set -eu

if [ $# -ne 2 ]; then
	echo "usage: $0 arm64|amd64 OUT" >&2
	exit 2
fi
top=$(cd "$(dirname "$0")/../.." && pwd)
"$top/kernel/rust/build.sh" "$1" "$2"
if ! cmp "$top/objects/$1/rust.o_shipped" "$2/rust.o_shipped"; then
	echo "$0: the bytes differ: build with the tools that $top/objects/built-with names" >&2
	exit 1
fi
echo "$1: the same bytes"
