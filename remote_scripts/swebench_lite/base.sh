#!/bin/bash
# Write a base image as a tar to stdout, where no registry can be reached: a small Debian with Python, pip and git.
# As root:  ./base.sh [SUITE [MIRROR [COMPONENTS]]] | docker import - swebench-lite-base
set -euo pipefail
suite=${1:-bookworm} mirror=${2:-} components=${3:-main}
rootfs=$(mktemp -d)
trap 'rm -rf "$rootfs"' EXIT
# A proxy that apt is configured with is the proxy of debootstrap too.
proxy=
eval "$(apt-config shell proxy Acquire::http::Proxy)"
[ -z "$proxy" ] || export http_proxy=$proxy
debootstrap --variant=minbase --components="$components" --include=ca-certificates,git,python3,python3-pip \
    "$suite" "$rootfs" ${mirror:+"$mirror"} >&2
ln -sf python3 "$rootfs/usr/bin/python"
# The certificates that this machine trusts: a company's own proxy is among them.
cp -L /etc/ssl/certs/ca-certificates.crt "$rootfs/etc/ssl/certs/ca-certificates.crt"
rm -rf "$rootfs"/var/lib/apt/lists/* "$rootfs"/var/cache/apt/archives/* "$rootfs"/usr/share/{doc,man,locale}/*
tar --numeric-owner -C "$rootfs" -c .
