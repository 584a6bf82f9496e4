#!/bin/bash
# Child of tini in a test eval host: sshd in front, the host's own Docker engine beside it.
# /fleet (read only) holds this host's key and the public key that may log in as ubuntu.
set -eu
install -m 600 /fleet/host_key /etc/ssh/ssh_host_ed25519_key
install -d -m 700 -o ubuntu -g ubuntu /home/ubuntu/.ssh
install -m 600 -o ubuntu -g ubuntu /fleet/authorized_keys /home/ubuntu/.ssh/authorized_keys
[ -s /etc/machine-id ] || tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
mkdir -p /run/sshd

# The engine writes below /proc/sys and the cgroup file systems, which are mounted read-only. A plain remount is
# refused without CAP_SYS_ADMIN outside; remounting the bind alone is allowed.
mount -o remount,bind,rw /proc/sys
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    # cgroup v2 allows no process in a group that has controllers switched on for its children.
    mount -o remount,bind,rw /sys/fs/cgroup
    mkdir -p /sys/fs/cgroup/init
    xargs -rn1 </sys/fs/cgroup/cgroup.procs >/sys/fs/cgroup/init/cgroup.procs 2>/dev/null || true
    sed -e 's/ / +/g' -e 's/^/+/' </sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control || true
else
    for group in /sys/fs/cgroup/*; do
        if mountpoint -q "$group"; then mount -o remount,bind,rw "$group"; fi
    done
fi

/usr/local/sbin/eval-host-dockerd &
exec /usr/sbin/sshd -D -e
