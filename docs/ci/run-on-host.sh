#!/bin/sh
# Boots an image as a host of GPUs and runs a script on it over ssh; the image stays as it was.
# Usage: run-on-host.sh TOPOLOGY IMAGE SCRIPT [OPTION OF varia host...]
# SSH_USER is the image's user (root), SSH_KEY the file of its private key.
set -eu
topology=$1 image=$2 script=$3
shift 3
folder=$(mktemp -d)
host=
end() {
    [ -z "$host" ] || kill "$host" 2>/dev/null || :
    [ -z "$host" ] || wait "$host" 2>/dev/null || :
    rm -rf "$folder"
}
trap end EXIT
mkfifo "$folder/ready"
varia host "$topology" --disk "$image" --snapshot --ssh 0 --wait-ready \
    --directory "$folder/host" "$@" > "$folder/ready" &
host=$!
# a host that ends first writes no line
read -r ready < "$folder/ready"
echo "$ready"
port=$(printf '%s\n' "$ready" | sed -n 's/.*"port":\([0-9]*\).*/\1/p')
ssh -p "$port" -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
    ${SSH_KEY:+-i "$SSH_KEY"} "${SSH_USER:-root}@127.0.0.1" sh -s < "$script"
