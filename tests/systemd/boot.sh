#!/bin/sh
# Becomes a real systemd: PID 1 of its own namespaces, on an overlay of / that is thrown away. Run as
#   unshare --mount --pid --net --uts --ipc --cgroup --fork boot.sh DIR
# DIR holds files/, copied over the overlay's /, and overlay/, empty.
set -eu
dir=$1
mount --make-rprivate /
mount -t tmpfs tmpfs "$dir/overlay"
mkdir -p "$dir/overlay/upper" "$dir/overlay/work" "$dir/overlay/root"
root=$dir/overlay/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/overlay/upper,workdir=$dir/overlay/work" "$root"
cp -r "$dir/files/." "$root/"

mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
umount "$root/sys/fs/cgroup"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
    touch "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"

: >"$root/etc/fstab"
: >"$root/etc/machine-id"
rm -f "$root"/etc/systemd/system/*.wants/* "$root/etc/resolv.conf"
ip link set lo up
hostname watchdog-test
chroot "$root" systemd-sysusers

mkdir -p "$root/.old"
cd "$root"
pivot_root . .old
umount -l /.old
exec env -i container=watchdog-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=watchdog-test.target --log-target=journal --log-level=info --show-status=no </dev/null
