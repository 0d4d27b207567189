#!/usr/bin/env bash
# Checks the adapters: annotations, a job summary, a JSON report, outputs. The verdict is a step of its own, so that all of
# these are there when it is red.
set -euo pipefail

tool="$RUNNER_TEMP/adapterlint/bin/adapterlint"
report="$RUNNER_TEMP/adapterlint-report.json"
options=(--fail-on "$ADAPTERLINT_FAIL_ON")
while IFS= read -r target; do
  if [[ -n "${target// /}" ]]; then options+=(--target "$target"); fi
done <<< "$ADAPTERLINT_TARGETS"
if [[ -n "$ADAPTERLINT_BASE" ]]; then options+=(--base "$ADAPTERLINT_BASE"); fi
paths=()
while IFS= read -r path; do
  if [[ -n "${path// /}" ]]; then paths+=("$path"); fi
done <<< "$ADAPTERLINT_PATHS"

status=0
"$tool" check "${options[@]}" --format github -- "${paths[@]}" || status=$?
"$tool" check "${options[@]}" --format json --exit-zero -- "${paths[@]}" > "$report" || true
{
  echo "### adapterlint"
  echo '```text'
  # A step summary of more than 1 MiB is thrown away whole; a fence inside the text would end the block.
  { NO_COLOR=1 "$tool" check "${options[@]}" --format full --exit-zero -- "${paths[@]}" 2>&1 || true; } |
    sed 's/```/` ` `/g' | head -c 900000
  echo
  echo '```'
} >> "$GITHUB_STEP_SUMMARY"
"$RUNNER_TEMP/adapterlint/bin/python" - "$report" >> "$GITHUB_OUTPUT" << 'PYTHON'
import json
import sys

try:
    with open(sys.argv[1], encoding="utf-8") as file:
        summary = json.load(file)["summary"]
except (OSError, ValueError, KeyError):
    summary = {"errors": "", "warnings": ""}
print(f"errors={summary['errors']}")
print(f"warnings={summary['warnings']}")
PYTHON
echo "report=$report" >> "$GITHUB_OUTPUT"
# 3 means that there is nothing to check, which is no failure of the repository.
if [[ "$status" == 3 ]]; then
  echo "::notice title=adapterlint::no adapters found"
  status=0
fi
echo "status=$status" >> "$GITHUB_OUTPUT"
