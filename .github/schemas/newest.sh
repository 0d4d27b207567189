#!/usr/bin/env bash
# Fails, and says what changed, when PyPI has a newer PEFT than the newest whose schemas are bundled.
set -euo pipefail

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
python -m pip download --quiet --disable-pip-version-check --no-deps --dest "$scratch" peft
file="$(basename "$scratch"/peft-*)"
newest="$(sed -E 's/^peft-([0-9.]+[0-9]).*/\1/' <<<"$file")"

bundled="$(adapterlint schema list | awk 'NF { print $1 }')"
if grep -qxF "$newest" <<<"$bundled"; then
  echo "PEFT $newest, the newest on PyPI, is bundled."
  exit 0
fi
echo "::error title=A new PEFT::PyPI has PEFT $newest, whose schemas are not bundled: adapterlint schema add $newest"
before="$(tail -n 1 <<<"$bundled")"
adapterlint schema add "$scratch/$file"
{
  echo "## What changed from PEFT $before to $newest"
  echo
  echo '```'
  adapterlint schema diff "$before" "$newest"
  echo '```'
} | tee -a "${GITHUB_STEP_SUMMARY:-/dev/null}"
exit 1
