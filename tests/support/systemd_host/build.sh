#!/bin/bash
# Build the root file system of a test host that boots systemd, as a cloud machine does.
# Called as root in a mount namespace of its own. Usage: build.sh ROOTFS SUITE MIRROR COMPONENTS(comma separated)
set -euo pipefail
rootfs=$1 suite=$2 mirror=$3 components=$4
here=$(cd "$(dirname "$0")" && pwd)
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

proxy=
eval "$(apt-config shell proxy Acquire::http::Proxy)"
[ -z "$proxy" ] || export http_proxy=$proxy

packages=systemd,systemd-sysv,libpam-systemd,dbus,openssh-server,sudo,python3-minimal,libpython3-stdlib,rsync,procps
debootstrap --variant=minbase --components="$components" --include="$packages" "$suite" "$rootfs" "$mirror"

chroot "$rootfs" groupadd --gid 900 docker
chroot "$rootfs" useradd --create-home --uid 1000 --shell /bin/bash --groups docker,sudo ubuntu
chroot "$rootfs" usermod -p '*' ubuntu
install -m 755 "$here/init.sh" "$rootfs/usr/local/sbin/systemd-host-init"
# What a container cannot do, and a test host does not need.
for unit in systemd-udevd systemd-timesyncd systemd-networkd systemd-resolved getty@tty1 apt-daily.timer dpkg-db-backup.timer; do
    chroot "$rootfs" systemctl mask "$unit" 2>/dev/null || true
done
rm -rf "$rootfs"/etc/ssh/ssh_host_* "$rootfs"/var/lib/apt/lists/* "$rootfs"/var/cache/apt/archives/*.deb \
    "$rootfs"/usr/share/doc/* "$rootfs"/usr/share/man/* "$rootfs"/usr/share/locale/*
: >"$rootfs/etc/machine-id"
