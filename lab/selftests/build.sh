#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Builds the kernel's own VFIO selftests as static programs: OUT/bin/NAME. Their source is taken
# from Debian's package linux-source and is never stored in this project.
#
# usage: build.sh ARCH SOURCE OUT
#   ARCH    arm64 or amd64
#   SOURCE  the kernel's source: its folders tools and include, and the headers of drivers/dma
#   OUT     a directory; made if it is missing
# environment: CC
set -eu

arch=$1 source=$2
mkdir -p "$3"
out=$(cd "$3" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
tree=$out/source
rm -rf "$tree" "$out/bin"
mkdir -p "$tree" "$out/bin"
cp -r "$source"/. "$tree/"

case $arch in
arm64) triplet=aarch64-linux-gnu drivers='' ;;
amd64) triplet=x86_64-linux-gnu drivers='lib/drivers/ioat/ioat.c lib/drivers/dsa/dsa.c' ;;
*)
	echo "$0: unknown architecture $arch: arm64 or amd64" >&2
	exit 2
	;;
esac

cd "$tree/tools/testing/selftests/vfio"
# The drivers for DMA by an NVIDIA GPU's falcon and by an igb are left out: the lab has neither device.
sed -i -e '/nv_falcon_ops/d' -e '/igb_ops/d' lib/vfio_pci_driver.c
# The kernel's interface comes from linux-libc-dev of the same version; only uuid.h is in
# /usr/include alone for a foreign architecture.
flags="-O2 -Wall -Wno-unused -D_GNU_SOURCE= -include $here/missing.h -Ilib/include -I.. \
	-I$tree/tools/include -pthread -idirafter /usr/include"
library=
for file in lib/*.c $drivers "$here/mode.c"; do
	object=$out/bin/$(basename "$file").o
	# shellcheck disable=SC2086 # a list
	"$CC" $flags -c "$file" -o "$object"
	library="$library $object"
done
for file in *_test.c; do
	# shellcheck disable=SC2086 # lists
	"$CC" $flags -static "$file" $library "/usr/lib/$triplet/libuuid.a" -o "$out/bin/${file%.c}"
done
rm -f "$out"/bin/*.o
rm -rf "$tree"
