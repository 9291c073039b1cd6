#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Makes the package of the command: OUT/varia_VERSION_ARCH.deb. The same program, documents and date
# give the same bytes.
#
# usage: cli/deb/deb.sh VERSION ARCH MADE OUT
#   ARCH  amd64 or arm64
#   MADE  a directory with the program (varia), man/*.1, completions/{bash,fish,zsh} and varia.cdx.json
#   OUT   a directory; made if it is missing
# environment:
#   SOURCE_DATE_EPOCH  the package's date, in seconds since 1970
#   MAINTAINER         Name <address>
set -eu
umask 022

if [ $# -ne 4 ] || [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
	echo "usage: SOURCE_DATE_EPOCH=SECONDS $0 VERSION ARCH MADE OUT" >&2
	exit 2
fi
version=$1 arch=$2 made=$3
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
mkdir -p "$4"
out=$(cd "$4" && pwd)
maintainer=${MAINTAINER:-The Varia developers <varia@localhost>}
tree=$out/tree-$arch
share=$tree/usr/share
documents=$share/doc/varia
rm -rf "$tree"
mkdir -p "$tree/DEBIAN"

# put FILE PATH: a file of the package.
put() {
	install -D -m 644 "$1" "$tree/usr/$2"
}
install -D -m 755 "$made/varia" "$tree/usr/bin/varia"
for page in "$made"/man/*.1; do
	put "$page" "share/man/man1/${page##*/}"
done
put "$made/completions/bash" share/bash-completion/completions/varia
put "$made/completions/fish" share/fish/vendor_completions.d/varia.fish
put "$made/completions/zsh" share/zsh/vendor-completions/_varia
for unit in varia-bind.service varia-bind@.service; do
	put "$top/cli/systemd/$unit" "lib/systemd/system/$unit"
done
put "$top/cli/systemd/60-varia.rules" lib/udev/rules.d/60-varia.rules
put "$here/lintian-overrides" share/lintian/overrides/varia

# Documents.
put "$here/README.Debian" share/doc/varia/README.Debian
put "$here/copyright" share/doc/varia/copyright
put "$made/varia.cdx.json" share/doc/varia/varia.cdx.json
for example in cli/systemd/varia.service cli/systemd/varia-gpu.socket node/deploy/daemonset.yaml \
	node/deploy/kubevirt.yaml node/deploy/pod.yaml; do
	put "$top/$example" "share/doc/varia/examples/${example##*/}"
done
{
	for license in MIT Apache-2.0; do
		echo "License: $license"
		case $license in
		Apache-2.0) echo " See /usr/share/common-licenses/Apache-2.0." ;;
		*) sed -e 's/^$/./' -e 's/^/ /' "$top/LICENSES/$license.txt" ;;
		esac
		echo
	done
} >>"$documents/copyright"
{
	echo "varia ($version) unstable; urgency=medium"
	echo
	sed -n 's/^- /  * /p' "$top/CHANGELOG.md" | fold -s -w 74 | sed 's/^\([^ ]\)/    \1/'
	echo
	echo " -- $maintainer  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
} >"$documents/changelog"
gzip -9 -n "$documents/changelog" "$documents/varia.cdx.json" "$share"/man/man1/*.1

# The package itself.
size=$(find "$tree/usr" -type f -exec cat {} + | wc -c)
sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$arch/" -e "s/@SIZE@/$(((size + 1023) / 1024))/" \
	-e "s/@MAINTAINER@/$maintainer/" "$here/control" >"$tree/DEBIAN/control"
for script in postinst postrm; do
	install -m 755 "$here/$script" "$tree/DEBIAN/$script"
done
(cd "$tree" && find usr -type f | LC_ALL=C sort | xargs md5sum >DEBIAN/md5sums)
find "$tree" -depth -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
# One thread: their number shows in the compressed bytes. Another process must not read an unfinished
# package.
deb=varia_${version}_$arch.deb
dpkg-deb --root-owner-group --threads-max=1 --build "$tree" "$out/$deb.partial"
mv "$out/$deb.partial" "$out/$deb"
rm -rf "$tree"
