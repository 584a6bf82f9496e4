#!/bin/bash
# Bring the host back to its first state: no process of ubuntu, no container, no image but the base, a fresh home.
set -eu
pkill -KILL -u ubuntu || true
docker version >/dev/null 2>&1 || /usr/local/sbin/eval-host-dockerd # a test ended the engine
containers=$(docker ps -aq)
[ -z "$containers" ] || docker rm -fv $containers >/dev/null
images=$(docker images --format '{{.Repository}}:{{.Tag}}' | grep -vx 'fleet-eval-base:latest' || true)
[ -z "$images" ] || docker rmi -f $images >/dev/null
find /home/ubuntu -mindepth 1 -maxdepth 1 ! -name .ssh -exec rm -rf {} +
find /tmp /var/tmp /dev/shm -mindepth 1 -user ubuntu -exec rm -rf {} +
cp -a /etc/skel/. /opt/eval-host/home/. /home/ubuntu/
chown -R ubuntu:ubuntu /home/ubuntu
