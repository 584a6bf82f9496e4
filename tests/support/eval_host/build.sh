#!/bin/bash
# Build the root file system of a test eval host: debootstrap, then apt install inside it.
# Called as root in a mount namespace of its own, so that a killed build leaves no mount behind.
# Usage: build.sh ROOTFS SUITE MIRROR COMPONENTS(comma separated)
set -euo pipefail
rootfs=$1 suite=$2 mirror=$3 components=$4
here=$(cd "$(dirname "$0")" && pwd)
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

# A proxy that apt is configured with is the proxy of debootstrap too.
proxy=
eval "$(apt-config shell proxy Acquire::http::Proxy)"
[ -z "$proxy" ] || export http_proxy=$proxy

debootstrap --variant=minbase --components="$components" "$suite" "$rootfs" "$mirror"

mountpoint -q "$rootfs/proc" || mount -t proc proc "$rootfs/proc"
printf '#!/bin/sh\nexit 101\n' >"$rootfs/usr/sbin/policy-rc.d" # no service starts inside the build
chmod +x "$rootfs/usr/sbin/policy-rc.d"
cp -L /etc/resolv.conf "$rootfs/etc/resolv.conf"
cp -L /etc/ssl/certs/ca-certificates.crt "$rootfs/tmp/ca.crt"
apt=(chroot "$rootfs" apt-get -q -y -o Acquire::https::CAInfo=/tmp/ca.crt -o Dpkg::Use-Pty=0)
"${apt[@]}" update
mapfile -t packages < <(grep -v '^#' "$here/packages.txt")
# Newer releases have the docker client in a package of its own.
if chroot "$rootfs" apt-cache show docker-cli >/dev/null 2>&1; then packages+=(docker-cli); fi
"${apt[@]}" install --no-install-recommends "${packages[@]}"

# `useradd` leaves a locked password, with which sshd refuses keys too when UsePAM is off.
chroot "$rootfs" useradd --create-home --uid 1000 --shell /bin/bash --groups docker,sudo ubuntu
chroot "$rootfs" usermod -p '*' ubuntu
echo 'ubuntu ALL=(ALL) NOPASSWD:ALL' >"$rootfs/etc/sudoers.d/ubuntu"
chmod 440 "$rootfs/etc/sudoers.d/ubuntu"

install -m 644 "$here/sshd_config" "$rootfs/etc/ssh/sshd_config"
install -m 755 "$here/init.sh" "$rootfs/usr/local/sbin/eval-host-init"
install -m 755 "$here/dockerd.sh" "$rootfs/usr/local/sbin/eval-host-dockerd"
install -m 755 "$here/reset.sh" "$rootfs/usr/local/sbin/eval-host-reset"

# The one image that every host's own engine holds: a static busybox, 2 MB.
image=$(mktemp -d)
mkdir -p "$image/bin" "$image/tmp" "$rootfs/opt/eval-host"
cp "$rootfs/usr/bin/busybox" "$image/bin/busybox" 2>/dev/null || cp "$rootfs/bin/busybox" "$image/bin/busybox"
for applet in sh sleep echo cat true false; do ln -s busybox "$image/bin/$applet"; done
tar --numeric-owner --owner=0 --group=0 -C "$image" -cf "$rootfs/opt/eval-host/base.tar" .
rm -rf "$image"

"${apt[@]}" clean
umount "$rootfs/proc"
rm -rf "$rootfs"/etc/ssh/ssh_host_* "$rootfs"/var/lib/apt/lists/* "$rootfs/usr/sbin/policy-rc.d" "$rootfs/tmp/ca.crt" \
    "$rootfs"/usr/share/doc/* "$rootfs"/usr/share/man/* "$rootfs"/usr/share/locale/*
: >"$rootfs/etc/machine-id"
