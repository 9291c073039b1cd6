#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Makes the DKMS package: OUT/nvgrace-gpu-vfio-pci-dkms_VERSION_all.deb. The same source, objects
# and date give the same bytes.
#
# usage: dkms/deb.sh VERSION OBJECTS OUT
#   OBJECTS  a directory with arm64/rust.o_shipped and amd64/rust.o_shipped, from rust/build.sh, and
#            built-with, a text that names the tools
#   OUT      a directory; made if it is missing
# environment:
#   SOURCE_DATE_EPOCH  the package's date, in seconds since 1970
#   MAINTAINER         Name <address>
set -eu
umask 022

if [ $# -ne 3 ] || [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
	echo "usage: SOURCE_DATE_EPOCH=SECONDS $0 VERSION OBJECTS OUT" >&2
	exit 2
fi
version=$1 objects=$2
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
mkdir -p "$3"
out=$(cd "$3" && pwd)
module=nvgrace-gpu-vfio-pci
package=$module-dkms
maintainer=${MAINTAINER:-The Varia developers <varia@localhost>}
tree=$out/tree
source=$tree/usr/src/$module-$version
documents=$tree/usr/share/doc/$package
rm -rf "$tree"
mkdir -p "$source" "$documents/examples" "$tree/DEBIAN"

# The source, as it lies in the project.
(
	cd "$top"
	find kernel units spec variant variants -type f ! -path '*/target/*' ! -path '*/build/*' ! -path '*/varia-coherent-memory/*' \
		! -path '*/tests/*' ! -name '.*' ! -path kernel/original.sh ! -path 'kernel/dkms/*' \
		! -path 'kernel/modules/varia-coherent-memory/*'
	echo kernel/dkms/build.sh
	echo kernel/dkms/check.sh
	echo kernel/dkms/rebuild.sh
	find LICENSES -type f
) | while read -r file; do
	mode=644
	if [ -x "$top/$file" ]; then
		mode=755
	fi
	install -D -m $mode "$top/$file" "$source/$file"
done
for file in arm64/rust.o_shipped amd64/rust.o_shipped built-with; do
	install -D -m 644 "$objects/$file" "$source/objects/$file"
done

# fill FILE TARGET: a template with its values.
fill() {
	size=$(find "$tree/usr" -type f -exec cat {} + | wc -c)
	sed -e "s/@VERSION@/$version/g" -e "s/@SIZE@/$(((size + 1023) / 1024))/g" \
		-e "s/@MAINTAINER@/$maintainer/g" "$here/$1" >"$2"
}
fill dkms.conf "$source/dkms.conf"

# Documents.
install -m 644 "$here/README.Debian" "$here/copyright" "$documents/"
install -m 644 "$here/modprobe.conf" "$documents/examples/$module.conf"
{
	for license in MIT GPL-2.0-only Apache-2.0; do
		echo "License: $license"
		case $license in
		GPL-2.0-only) echo " See /usr/share/common-licenses/GPL-2." ;;
		Apache-2.0) echo " See /usr/share/common-licenses/Apache-2.0." ;;
		*) sed -e 's/^$/./' -e 's/^/ /' "$top/LICENSES/$license.txt" ;;
		esac
		echo
	done
} >>"$documents/copyright"
{
	echo "$package ($version) unstable; urgency=medium"
	echo
	sed -n 's/^- /  * /p' "$top/CHANGELOG.md"
	echo
	echo " -- $maintainer  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9 -n >"$documents/changelog.gz"

# The package itself.
for script in postinst prerm; do
	fill $script "$tree/DEBIAN/$script"
	chmod 755 "$tree/DEBIAN/$script"
done
fill control "$tree/DEBIAN/control"
(cd "$tree" && find usr -type f | LC_ALL=C sort | xargs md5sum >DEBIAN/md5sums)
find "$tree" -depth -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
# One thread: how many there are shows in the compressed bytes.
# who reads the last one must not see half of this one
deb=${package}_${version}_all.deb
dpkg-deb --root-owner-group --threads-max=1 -Zxz --build "$tree" "$out/$deb.partial"
mv "$out/$deb.partial" "$out/$deb"
rm -rf "$tree"
