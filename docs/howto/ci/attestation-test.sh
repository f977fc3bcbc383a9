#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# An attestation test that knows nothing of softsnp: it would run in a guest on an EPYC as it is.
# Wants snpguest (https://github.com/virtee/snpguest) on the path and writes into the current folder.
set -eu
mkdir -p from-guest from-kds

# The guest's report, and the certificates its host has for it.
snpguest report report.bin request.bin --random
snpguest certificates pem from-guest
snpguest verify certs from-guest
snpguest verify attestation from-guest report.bin

# The same with what AMD's key service says.
snpguest fetch ca pem from-kds milan
snpguest fetch vcek pem from-kds report.bin
snpguest fetch crl pem from-kds milan
snpguest verify certs from-kds
snpguest verify attestation from-kds report.bin

# A key for sealing is the same each time.
snpguest key first.key vcek --vmpl 1
snpguest key second.key vcek --vmpl 1
cmp first.key second.key
