#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Builds an x86-64 kernel with Rust from Debian's kernel source, by LLVM:
#   OUT/Image      what a machine boots
#   OUT/config     its whole configuration
#   OUT/modules    its modules, the test module among them
#
# usage: build-rust.sh SOURCE FRAGMENT LAID POSITION OUT
#   SOURCE    linux-source-VERSION.tar.xz
#   FRAGMENT  options on top of allnoconfig
#   LAID      files that are laid over the source
#   POSITION  folder of a module for tests
#   OUT       a directory
# environment: JOBS
set -eu

source=$1 fragment=$2 laid=$3 position=$4 out=$5
tree=$out/tree
mkdir "$tree"
tar -xf "$source" -C "$tree" --strip-components=1
cp -r "$laid/." "$tree/"
cp -r "$position" "$out/position"
cd "$tree"

run() {
	make LLVM=1 -j"${JOBS:-2}" "$@"
}

run KCONFIG_ALLCONFIG="$fragment" allnoconfig
# What depends on an option that is missing is dropped by kconfig in silence.
sed -n '/^CONFIG_/p' "$fragment" | while read -r option; do
	if ! grep -qx "$option" .config; then
		echo "$0: $option can't be had: the configuration says $(grep -w "${option%%=*}" .config || echo nothing)" >&2
		exit 1
	fi
done

run bzImage modules
run INSTALL_MOD_PATH="$out/installed" modules_install
run M="$out/position" modules

mv arch/x86/boot/bzImage "$out/Image"
cp .config "$out/config"
mv "$out"/installed/lib/modules/* "$out/modules"
cp "$out"/position/*.ko "$out/modules/"
rm -rf "$out/modules/build" "$out/modules/source" "$out/installed" "$out/position" "$laid" "$tree"
