#!/bin/sh
# As a container engine would with --read-only --tmpfs /tmp --user 65532:65532 --cap-drop ALL --security-opt
# no-new-privileges: runs a command where it sees nothing of this machine but its programs and what it is given, all
# read-only. Called by `unshare --mount`, as root; the process stays the same one, so that signals reach the command.
#
#   jail.sh EMPTY-FOLDER FOLDER-OF-PYTHON FOLDER-THAT-IS-/opt/gateway-IN-THE-IMAGE NAME=VALUE... COMMAND...
set -eu
root=$1 python=$2 environment=$3
shift 3
show() {
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    mount -o remount,bind,ro "$root$2"
}
mount --make-rprivate /
mount -t tmpfs -o mode=755 jail "$root"
for folder in /usr /bin /lib /lib64 /etc "$python"; do
    [ -e "$root$folder" ] || [ ! -e "$folder" ] || show "$folder" "$folder"
done
show "$environment" /opt/gateway
mkdir -p "$root/proc" "$root/dev" "$root/tmp"
mount -t proc proc "$root/proc"
for device in null urandom; do
    : > "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mount -t tmpfs -o mode=1777,size=64m,noexec,nosuid,nodev tmp "$root/tmp"
mount -o remount,ro "$root"
exec chroot "$root" setpriv --reuid 65532 --regid 65532 --clear-groups --bounding-set=-all --no-new-privs env -i "$@"
