#!/usr/bin/env bash
# The tests on processors that this machine is not, by emulation: every one, or those that are
# named. What an emulator needs is fetched into build/emulated, nothing is installed; a processor
# whose emulator is not to be had says so in a line and is skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."
for processor in ${@:-sse bochs arm}; do
  bash "tests/emulated/$processor.sh"
done
