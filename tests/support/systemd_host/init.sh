#!/bin/sh
# First process of a systemd test host: put the keys in place, make the cgroups writable, become systemd.
# /fleet (read only) holds this host's key and the public key that may log in as ubuntu.
set -eu
install -m 600 /fleet/host_key /etc/ssh/ssh_host_ed25519_key
install -d -m 700 -o ubuntu -g ubuntu /home/ubuntu/.ssh
install -m 600 -o ubuntu -g ubuntu /fleet/authorized_keys /home/ubuntu/.ssh/authorized_keys
mount -o remount,bind,rw /sys/fs/cgroup 2>/dev/null || true
exec /lib/systemd/systemd
