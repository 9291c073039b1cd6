#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# What dkms runs on the target, in the root of the shipped source: compiles the C adaptor against
# one kernel and links it with the prebuilt Rust object. The result is out/nvgrace-gpu-vfio-pci.ko.
#
# usage: kernel/dkms/build.sh KDIR MACHINE
#   KDIR     the kernel's headers
#   MACHINE  x86_64 or aarch64, as uname -m says it
set -eu

case $2 in
x86_64) arch=amd64 ;;
aarch64) arch=arm64 ;;
*)
	echo "$0: architecture $2 is not supported: the package has Rust objects for x86_64 and aarch64" >&2
	exit 1
	;;
esac
# A compiler that is not the kernel's own may warn; on the target that is no reason to refuse.
RUST_OBJECT=$PWD/objects/$arch/rust.o_shipped UNRELEASED_IDS=n WARNINGS=shown \
	exec kernel/build.sh $arch "$1" out
