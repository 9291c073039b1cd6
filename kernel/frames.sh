#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Checks the stack frames of the Rust object against the limit that a kernel has for its own:
# CONFIG_FRAME_WARN of its auto.conf, or LIMIT. C's frames are checked by the compiler. A frame is
# what the instructions of a function take from the stack pointer.
#
# usage: frames.sh arm64|amd64 KDIR OBJECT [LIMIT]
# environment: CROSS_COMPILE, the prefix of objdump
set -eu

if [ $# -lt 3 ]; then
	echo "usage: $0 arm64|amd64 KDIR OBJECT [LIMIT]" >&2
	exit 2
fi
limit=${4:-$(sed -n 's/^CONFIG_FRAME_WARN=//p' "$2/include/config/auto.conf")}
frames=$("${CROSS_COMPILE-}objdump" -d --no-show-raw-insn "$3" | awk -v arch="$1" '
	function number(text,   value, at) {
		sub(/^[#$]/, "", text)
		sub(/,$/, "", text)
		if (text !~ /^-?0x/)
			return text + 0
		sub(/^-?0x/, "", text)
		value = 0
		for (at = 1; at <= length(text); at++)
			value = value * 16 + index("0123456789abcdef", substr(text, at, 1)) - 1
		return value
	}
	/^[0-9a-f]+ <.*>:$/ { name = $2; gsub(/[<>:]/, "", name); size[name] = 0 }
	arch == "arm64" && $2 == "sub" && $3 == "sp," && $4 == "sp," {
		bytes = number($5)
		if ($6 == "lsl")
			bytes *= 4096
		size[name] += bytes
	}
	arch == "arm64" && /\[sp, #-[0-9]+\]!/ {
		match($0, /#-[0-9]+\]!/)
		size[name] += substr($0, RSTART + 2, RLENGTH - 4)
	}
	arch == "amd64" && $2 == "sub" && $3 ~ /^\$.*,%rsp$/ { split($3, part, ","); size[name] += number(part[1]) }
	arch == "amd64" && $2 == "push" { size[name] += 8 }
	END { for (name in size) print size[name], name }
' | sort -rn)
if [ -z "$frames" ]; then
	echo "$0: objdump finds no function in $3" >&2
	exit 1
fi
echo "$frames" | awk -v limit="${limit:-0}" '
	NR == 1 { print "the largest stack frame of the Rust object has " $1 " bytes: " $2 }
	limit > 0 && $1 > limit {
		print "the stack frame of " $2 " has " $1 " bytes; the limit of the kernel (CONFIG_FRAME_WARN) is " limit " bytes" > "/dev/stderr"
		wrong = 1
	}
	END { exit wrong }
'
