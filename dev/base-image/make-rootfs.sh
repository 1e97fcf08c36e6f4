#!/bin/bash
# Write the root file system of the base image as a tar.
#
# make-rootfs.sh OUTPUT CA_BUNDLE PIP_CONF
#   OUTPUT     the tar to write
#   CA_BUNDLE  certificates this machine trusts; the image trusts the same
#   PIP_CONF   how this machine's pip reaches its registry
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
output=$1
export MOORING_CA_BUNDLE=$2 MOORING_PIP_CONF=$3

# usrmerge would bring all of Perl to convert a tree that the merged-usr hook lays out right from
# the start; the pin leaves usr-is-merged as the one that satisfies the dependency.
exec mmdebstrap --variant=essential \
    --include=apt,usr-is-merged,ca-certificates,libstdc++6,python3,python3-venv,tzdata \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --setup-hook='mkdir -p "$1/etc/apt/preferences.d"' \
    --setup-hook="copy-in $here/no-usrmerge /etc/apt/preferences.d" \
    --aptopt='APT::Install-Recommends "false"' \
    --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='force-unsafe-io' \
    --customize-hook="bash $here/customize.sh \"\$1\"" \
    bookworm "$output"
