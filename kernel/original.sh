#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Builds Linux's own nvgrace-gpu-vfio-pci.ko, the oracle of our tests, as an external module:
# OUT/nvgrace-gpu-vfio-pci.ko. Its source is taken from Debian's package linux-source and is
# never stored in this project.
#
# usage: original.sh ARCH KDIR SOURCE OUT
#   ARCH    arm64 or amd64
#   KDIR    a kernel's headers
#   SOURCE  the source of the same version, as Debian's linux-source-VERSION.tar.xz holds it: its
#           folder drivers/vfio/pci/nvgrace-gpu is enough
#   OUT     a directory; made if it is missing
# environment: CROSS_COMPILE, CC and JOBS, as in build.sh
set -eu

if [ $# -ne 4 ]; then
	echo "usage: $0 arm64|amd64 KDIR SOURCE OUT" >&2
	exit 2
fi
arch=$1 kdir=$2 tree=$3
mkdir -p "$4"
out=$(cd "$4" && pwd)
folder=drivers/vfio/pci/nvgrace-gpu

case $arch in
arm64) kernel_arch=arm64 machine=aarch64 prefix=aarch64-linux-gnu- ;;
amd64) kernel_arch=x86 machine=x86_64 prefix=x86_64-linux-gnu- ;;
*)
	echo "$0: unknown architecture $arch: arm64 or amd64" >&2
	exit 2
	;;
esac
if [ "$(uname -m)" = $machine ]; then
	prefix=
fi

source=$out/source
if [ ! -f "$tree/$folder/main.c" ]; then
	echo "$0: no $folder in $tree: is it a kernel's source?" >&2
	exit 1
fi
mkdir -p "$source"
cp "$tree/$folder"/* "$source/"
make -s -C "$kdir" M="$source" ARCH=$kernel_arch CROSS_COMPILE="${CROSS_COMPILE-$prefix}" \
	-j"${JOBS:-2}" ${CC:+"CC=$CC"} CONFIG_NVGRACE_GPU_VFIO_PCI=m modules
cp "$source/nvgrace-gpu-vfio-pci.ko" "$out/nvgrace-gpu-vfio-pci.ko"
