#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Builds the Rust object that the modules link: OUT/rust.o_shipped.
#
# The object depends on the architecture and not on a kernel, because the Rust half calls no kernel
# function. `core` is compiled here from the compiler's own sources, for a target without
# floating-point and vector registers.
#
# usage: rust/build.sh ARCH OUT
#   ARCH   arm64 or amd64
#   OUT    a directory; made if it is missing
# environment:
#   RUSTC     rustc
#   RUST_SRC  the directory `library` of the sources of the same rustc
#   BINUTILS  prefix of ld, nm and objcopy for ARCH, such as aarch64-linux-gnu-
#   FEATURES  cargo features of kernel/rust, separated by spaces
#   MODULE    the module's directory, whose variant.rs is linked; by default the one in modules/
set -eu

if [ $# -ne 2 ]; then
	echo "usage: $0 arm64|amd64 OUT" >&2
	exit 2
fi
arch=$1 out=$2
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
RUSTC=${RUSTC:-rustc}
RUST_SRC=${RUST_SRC:-$("$RUSTC" --print sysroot)/lib/rustlib/src/rust/library}

if [ ! -f "$RUST_SRC/core/src/lib.rs" ]; then
	echo "$0: no sources of core in $RUST_SRC: install rust-src, or set RUST_SRC" >&2
	exit 1
fi

# Pinned: without optimisation a panic always appears reachable, with overflow checks it often is.
common="-Copt-level=2 -Cpanic=abort -Coverflow-checks=no -Cdebug-assertions=no -Cdebuginfo=0
	-Crelocation-model=static -Cforce-frame-pointers=yes -Cjump-tables=no
	-Zfunction-sections=no"
# shellcheck source=flags.sh
. "$here/flags.sh"
flags "$arch" || {
	echo "$0: unknown architecture $arch: arm64 or amd64" >&2
	exit 2
}
BINUTILS=${BINUTILS:-$prefix}

# Compiling core takes most of the time and is needed once for each compiler.
work=$out/rust
stamp="$("$RUSTC" --version) $target $common $flags $RUST_SRC"
if [ ! -f "$work/stamp" ] || [ "$(cat "$work/stamp")" != "$stamp" ]; then
	rm -rf "$work"
fi
mkdir -p "$work"
rm -f "$out/rust.o_shipped"

# compile NAME EDITION FILE TYPE [ARGUMENT...]: one crate, nothing of the host's sysroot in sight.
compile() {
	name=$1 edition=$2 file=$3 type=$4
	shift 4
	# shellcheck disable=SC2086 # flags are lists
	RUSTC_BOOTSTRAP=1 "$RUSTC" --crate-name "$name" --edition "$edition" --crate-type "$type" \
		--target "$target" --sysroot "$work/no-sysroot" -L "$work" --out-dir "$work" \
		--remap-path-prefix "$RUST_SRC=/rust" --remap-path-prefix "$top=/varia" \
		$common $flags "$@" "$file"
}

MODULE=${MODULE:-$here/../modules/nvgrace-gpu-vfio-pci}
features=
for feature in ${FEATURES:-}; do
	features="$features --cfg feature=\"$feature\""
done

if [ ! -f "$work/stamp" ]; then
	compile core 2024 "$RUST_SRC/core/src/lib.rs" rlib -Zforce-unstable-if-unmarked \
		--cap-lints allow
	echo "$stamp" >"$work/stamp"
fi
compile compiler_builtins 2024 "$here/stub.rs" rlib --extern core
compile varia_units 2024 "$top/units/src/lib.rs" rlib
compile varia_spec 2024 "$top/spec/src/lib.rs" rlib
compile varia_variant 2024 "$top/variant/src/lib.rs" rlib --extern varia_units --extern varia_spec
# A module with a border of its own is not a VFIO driver: its border is the object.
if [ -f "$MODULE/border.rs" ]; then
	compile varia_placement 2024 "$top/placement/src/lib.rs" rlib \
		--extern varia_units --extern varia_spec --extern varia_variant
	# shellcheck disable=SC2086 # a list
	compile varia_kernel 2024 "$MODULE/border.rs" staticlib -Clto=fat -Ccodegen-units=1 \
		--extern varia_units --extern varia_spec --extern varia_variant \
		--extern varia_placement $features
else
	compile varia_variants 2024 "$top/variants/src/lib.rs" rlib --extern varia_spec --extern varia_variant
	compile varia_module 2024 "$MODULE/variant.rs" rlib \
		--extern varia_spec --extern varia_variant --extern varia_variants
	# shellcheck disable=SC2086 # a list
	compile varia_kernel 2024 "$here/src/lib.rs" staticlib -Clto=fat -Ccodegen-units=1 \
		--extern varia_spec --extern varia_variant --extern varia_module $features
fi

"${BINUTILS}ld" -r --whole-archive "$work/libvaria_kernel.a" -o "$work/whole.o"
"${BINUTILS}objcopy" --remove-section=.llvmbc --remove-section=.llvmcmd --remove-section=.comment \
	--remove-section='.note.gnu.property' "$work/whole.o" "$work/rust.o"

# Undefined symbols of the object: the memory functions of the kernel, and no panic.
wrong=
for symbol in $("${BINUTILS}nm" -u "$work/rust.o" | sed 's/^ *[A-Za-z] //'); do
	case " $allowed " in
	*" $symbol "*) ;;
	*) wrong="$wrong $symbol" ;;
	esac
done
if [ -n "$wrong" ]; then
	echo "$0: the object refers to symbols that a kernel does not provide:$wrong" >&2
	case " $wrong " in
	*" varia_a_panic_is_reachable "*)
		echo "$0: an index, slice, division or unwrap can panic; use get() or checked arithmetic" >&2
		;;
	esac
	exit 1
fi
mv "$work/rust.o" "$out/rust.o_shipped"
