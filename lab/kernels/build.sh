#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Builds a kernel of the lab from Debian's kernel source:
#   OUT/Image      what a machine boots
#   OUT/config     its whole configuration
#   OUT/modules    its modules
#   OUT/headers    what modules are built against
#
# usage: build.sh SOURCE FRAGMENT OUT
#   SOURCE    linux-source-VERSION.tar.xz
#   FRAGMENT  options on top of allnoconfig
#   OUT       an empty directory
# environment: ARCH, CROSS_COMPILE, CC and HOSTCC as the kernel's make knows them; JOBS
set -eu

source=$1 fragment=$2 out=$3
tree=$out/tree
mkdir "$tree"
tar -xf "$source" -C "$tree" --strip-components=1
cd "$tree"

run() {
	make -j"${JOBS:-2}" ARCH="$ARCH" CROSS_COMPILE="$CROSS_COMPILE" CC="$CC" HOSTCC="$HOSTCC" "$@"
}

run KCONFIG_ALLCONFIG="$fragment" allnoconfig
# What depends on an option that is missing is dropped by kconfig in silence.
sed -n '/^CONFIG_/p' "$fragment" | while read -r option; do
	if ! grep -qx "$option" .config; then
		echo "$0: $option can't be had: the configuration says $(grep -w "${option%%=*}" .config || echo nothing)" >&2
		exit 1
	fi
done

run Image modules
run INSTALL_MOD_PATH="$out/installed" modules_install
# The compiler of the host programs stays: modules are built on the machine that built the kernel.
run KBUILD_RUN_COMMAND="HOSTCC=\$(CC) \$(srctree)/scripts/package/install-extmod-build $out/headers" \
	run-command

mv arch/"$ARCH"/boot/Image "$out/Image"
cp .config "$out/config"
mv "$out"/installed/lib/modules/* "$out/modules"
rm -rf "$out/modules/build" "$out/modules/source" "$out/installed" "$tree"
