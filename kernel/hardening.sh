#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Checks that the Rust object has the hardening that a kernel's auto.conf requires of every object.
# An unknown option of that kind stops the build, with its name: a maintainer has to find out
# whether the object must follow. Options are known by the name that they have today, and by the
# older name if they had one.
#
# usage: hardening.sh arm64|amd64 KDIR
set -eu

if [ $# -ne 2 ]; then
	echo "usage: $0 arm64|amd64 KDIR" >&2
	exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
config=$2/include/config/auto.conf
if [ ! -f "$config" ]; then
	echo "$0: $config does not exist: $2 is not a configured kernel; run its make modules_prepare, or install linux-headers" >&2
	exit 1
fi
# shellcheck source=rust/flags.sh
. "$here/rust/flags.sh"
flags "$1" || {
	echo "$0: unknown architecture $1: arm64 or amd64" >&2
	exit 2
}

# Options that are on and resemble hardening of generated code, without what only says that a
# compiler or an architecture could have it, and without drivers.
words='MITIGATIONS?|IBT|FINEIBT|CFI|SHADOW|PTR_AUTH|PAC|BTI|GCS|SCS|CALL_(PADDING|THUNKS|DEPTH)|FUNCTION_PADDING
	STACKPROTECTOR|INIT_STACK|INIT_ON|ZERO_CALL|RANDSTRUCT|GCC_PLUGINS|SLS|HARDEN|HARDENED|FORTIFY|UBSAN
	KSTACK|RETPOLINE|RETHUNK|LTO|KASAN|KCSAN|KMSAN|KCOV|AUTOFDO|PROPELLER'
asked=$(sed -n 's/^CONFIG_\([A-Z0-9_]*=[^m].*\)$/\1/p' "$config" |
	grep -E "(^|_)($(echo "$words" | tr '\n\t' '|' | tr -s '|'))(_|=)" |
	grep -vE '^(HAVE|ARCH|CC|AS|LD|RUSTC)_|^MTD_|^RESET_ATTACK_|_NAPI_' || true)

need() {
	case " $hardening " in
	*" $2 "*) ;;
	*)
		echo "$0: CONFIG_$1 of $config needs $2, which the Rust object lacks (it has $hardening): add the flag to kernel/rust/flags.sh" >&2
		exit 1
		;;
	esac
}

for option in $asked; do
	name=${option%%=*}
	case $name in
	# Hardening that the object must have.
	MITIGATION_RETHUNK | RETHUNK) need "$name" return-thunk ;;
	X86_KERNEL_IBT) need "$name" endbr ;;
	CALL_PADDING) need "$name" padding-16 ;;
	FUNCTION_PADDING_BYTES) need "$option" "padding-${option#*=}" ;;
	ARM64_PTR_AUTH_KERNEL) need "$name" pac-ret ;;
	ARM64_BTI_KERNEL) need "$name" bti ;;
	SHADOW_CALL_STACK | DYNAMIC_SCS | UNWIND_PATCH_PAC_INTO_SCS) need "$name" fixed-x18 ;;
	# Indirect branches and calls: there are none in the object, and none of its functions is called
	# through a pointer. A test reads its instructions.
	MITIGATION_RETPOLINE | RETPOLINE | MITIGATION_ITS) ;;
	CFI | CFI_CLANG | CFI_* | FINEIBT | FUNCTION_PADDING_CFI) ;;
	# int3 behind returns: a return is a jump to the kernel's thunk here, and objtool checks it.
	MITIGATION_SLS | SLS) ;;
	# Made by the compiler of C, in C's functions: arrays on the stack, checks of C's arithmetic and
	# copies, layouts of the kernel's own structs. Rust checks bounds itself and sees no kernel struct.
	STACKPROTECTOR*) ;;
	INIT_STACK_*) ;;
	FORTIFY_SOURCE | UBSAN | UBSAN_*) ;;
	RANDSTRUCT_*) ;;
	GCC_PLUGINS) ;;
	ZERO_CALL_USED_REGS) ;;
	# Instrumentation that finds errors of C's memory accesses.
	KASAN | KASAN_* | KCSAN | KCSAN_*) ;;
	# The kernel's own entry code, page tables, allocators and lists.
	MITIGATION_PAGE_TABLE_ISOLATION | MITIGATION_UNRET_ENTRY | MITIGATION_IBPB_ENTRY) ;;
	MITIGATION_IBRS_ENTRY | MITIGATION_SRSO | MITIGATION_GDS | MITIGATION_RFDS) ;;
	MITIGATION_SPECTRE_BHI | MITIGATION_SPECTRE_V1 | MITIGATION_SPECTRE_V2) ;;
	MITIGATION_MDS | MITIGATION_TAA | MITIGATION_MMIO_STALE_DATA | MITIGATION_L1TF) ;;
	MITIGATION_RETBLEED | MITIGATION_SRBDS | MITIGATION_SSB | MITIGATION_TSA) ;;
	MITIGATION_VMSCAPE | CPU_MITIGATIONS | SPECULATION_MITIGATIONS) ;;
	# Patched into the padding, for which the object has room.
	MITIGATION_CALL_DEPTH_TRACKING | CALL_DEPTH_TRACKING | CALL_THUNKS | CALL_THUNKS_DEBUG) ;;
	INIT_ON_*) ;;
	HARDENED_USERCOPY* | LIST_HARDENED | SLAB_FREELIST_HARDENED | BUG_ON_DATA_CORRUPTION) ;;
	HARDEN_BRANCH_PREDICTOR | HARDEN_BRANCH_HISTORY) ;;
	RANDOMIZE_KSTACK_OFFSET*) ;;
	# User space's.
	X86_USER_SHADOW_STACK | ARM64_PTR_AUTH | ARM64_BTI | ARM64_GCS) ;;
	# Features of processors that the kernel was told to do without, or to count on.
	X86_DISABLED_FEATURE_* | X86_REQUIRED_FEATURE_*) ;;
	# Facts about compilers.
	LTO_NONE | BUILTIN_RETURN_ADDRESS_STRIPS_PAC) ;;
	*)
		echo "$0: CONFIG_$name of $config asks for hardening that is not known here: find out whether the Rust object must follow, and add it to kernel/hardening.sh" >&2
		exit 1
		;;
	esac
done
