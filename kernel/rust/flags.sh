# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh disable=SC2034 # read by rust/build.sh and hardening.sh
#
# flags ARCH: compiler flags of the Rust object for arm64 or amd64, and the hardening that they give.
# The hardening covers all known kernels, so that one object fits each of them.

flags() {
	case $1 in
	arm64)
		# Return addresses are signed, indirect branches land where they may, and x18 stays free
		# for a shadow call stack.
		target=aarch64-unknown-none-softfloat
		flags="-Zbranch-protection=bti,pac-ret -Zfixed-x18"
		hardening="pac-ret bti fixed-x18"
		prefix=aarch64-linux-gnu-
		allowed="memcpy memset memmove memcmp"
		;;
	amd64)
		# Returns through the kernel's thunk, ENDBR, and padding in front of functions for call
		# depth tracking; calls that need no global offset table.
		target=x86_64-unknown-none
		flags="-Zfunction-return=thunk-extern -Zcf-protection=branch -Zplt=yes
			-Zpatchable-function-entry=16,16"
		hardening="return-thunk endbr padding-16"
		prefix=x86_64-linux-gnu-
		allowed="memcpy memset memmove memcmp __x86_return_thunk"
		;;
	*)
		return 1
		;;
	esac
}
