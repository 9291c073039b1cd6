#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# What dkms runs before a build, in the root of the shipped source: whether the module can be built for
# a kernel. No pattern on the kernel's version tells that. A kernel that can't be served is skipped: the
# exit status is then 77, which dkms takes as its own exclusion of a kernel, and one line for each
# interface that the kernel lacks says why.
#
# usage: kernel/dkms/check.sh KDIR MACHINE
#   KDIR     the kernel's headers
#   MACHINE  x86_64 or aarch64, as uname -m says it
set -eu

case $2 in
x86_64) arch=amd64 kernel_arch=x86 ;;
aarch64) arch=arm64 kernel_arch=arm64 ;;
*)
	echo "skipped: architecture $2: the package has Rust objects for x86_64 and aarch64"
	exit 77
	;;
esac
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
skip() {
	echo "skipped: nvgrace-gpu-vfio-pci is not built for this kernel"
	cat "$out/said"
	exit 77
}
kernel/hardening.sh $arch "$1" >"$out/said" 2>&1 || skip
status=0
kernel/probe.sh $kernel_arch "$1" "$out" >"$out/said" 2>&1 || status=$?
# Another failure is that of a broken tree, which the build names.
[ $status -ne 77 ] || skip
