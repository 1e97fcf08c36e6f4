#!/bin/bash
# What the base image has beyond Debian's packages. Run by make-rootfs.sh with the new root as $1.
set -euo pipefail
root=$1

install -m 0644 "$MOORING_CA_BUNDLE" "$root/etc/ssl/certs/ca-certificates.crt"
install -m 0644 "$MOORING_PIP_CONF" "$root/etc/pip.conf"

# The user that every component runs as. A number alone would do for Kubernetes, but
# getpass.getuser() and ~ need an entry.
echo 'nonroot:x:65532:65532:nonroot:/home/nonroot:/usr/sbin/nologin' >>"$root/etc/passwd"
echo 'nonroot:x:65532:' >>"$root/etc/group"
install -d -m 0755 "$root/home/nonroot"

chroot "$root" python3 -m venv /opt/venv
# Only pip is needed in it; the images install wheels, and never build.
chroot "$root" /opt/venv/bin/python -m pip uninstall --quiet --yes setuptools

rm -rf "$root"/usr/share/{doc,info,locale,man,python-wheels} \
    "$root"/usr/lib/python3*/{ensurepip,idlelib,lib2to3,test} \
    "$root"/var/cache/debconf/* "$root"/var/log/*
