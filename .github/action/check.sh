#!/usr/bin/env bash
# Checks the adapters: annotations, a job summary, reports, outputs. The verdict is a step of its own, so that all of these
# are there when it is red.
set -euo pipefail

tool="$RUNNER_TEMP/adapterlint/bin/adapterlint"
report="$RUNNER_TEMP/adapterlint-report.json"
errors="$RUNNER_TEMP/adapterlint-errors.txt"
rm -f "$report"

refuse() {
  echo "::error title=adapterlint::$1"
  exit 2
}

# What a name in a repository says must not be a command to the runner: commands stop while the text is printed.
show() {
  local token
  token="adapterlint-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
  echo "::group::$1"
  echo "::stop-commands::$token"
  cat
  echo "::$token::"
  echo "::endgroup::"
}

# A step summary of more than 1 MiB is thrown away whole; a fence inside the text would end the block.
summarise() {
  local room=$((900000 - $(stat -c %s "$GITHUB_STEP_SUMMARY" 2> /dev/null || echo 0)))
  if ((room > 2000)); then
    printf '\n### %s\n\n```%s\n' "$1" "$2"
    sed 's/```/` ` `/g' | head -c "$room"
    printf '\n```\n'
  else
    cat > /dev/null
  fi >> "$GITHUB_STEP_SUMMARY"
}

options=()
while IFS= read -r target; do
  if [[ -n "${target// /}" ]]; then options+=(--target "$target"); fi
done <<< "$ADAPTERLINT_TARGETS"
if [[ -n "$ADAPTERLINT_BASE" ]]; then options+=(--base "$ADAPTERLINT_BASE"); fi
failing=()
if [[ -n "$ADAPTERLINT_FAIL_ON" ]]; then failing=(--fail-on "$ADAPTERLINT_FAIL_ON"); fi
paths=()
while IFS= read -r path; do
  if [[ -n "${path// /}" ]]; then paths+=("$path"); fi
done <<< "$ADAPTERLINT_PATHS"
reports=(-o github -o "json=$report")
sarif="${ADAPTERLINT_SARIF_FILE:-}"
if [[ -n "$sarif" ]]; then
  if [[ "$sarif" != /* ]]; then sarif="./$sarif"; fi
  mkdir -p -- "$(dirname -- "$sarif")"
  reports+=(-o "sarif=$sarif")
fi
case "${ADAPTERLINT_FIX:-false}" in
  true | false) ;;
  *) refuse "fix must be true or false" ;;
esac

status=0
"$tool" check "${options[@]}" "${failing[@]}" "${reports[@]}" -- "${paths[@]}" 2> "$errors" || status=$?
if [[ -s "$errors" ]]; then
  show "adapterlint check: errors" < "$errors"
  if [[ "$status" == 2 ]]; then summarise "adapterlint" text < "$errors"; fi
fi

if [[ "${ADAPTERLINT_FIX:-false}" == true && "$status" != 2 && "$status" != 3 ]]; then
  diff="$RUNNER_TEMP/adapterlint-fix.diff"
  fixing=0
  "$tool" fix "${options[@]}" -- "${paths[@]}" > "$diff" 2> "$errors" || fixing=$?
  cat "$errors" >> "$diff"
  show "adapterlint fix" < "$diff"
  if [[ "$fixing" != 0 ]]; then
    summarise "adapterlint fix" diff < "$diff"
    if [[ "$status" == 0 && "$ADAPTERLINT_FAIL_ON" != never ]]; then
      echo "::error title=adapterlint::there are repairs to make: run adapterlint fix --inplace"
      status="$fixing"
    fi
  fi
fi

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
{
  echo "report=$report"
  if [[ -n "$sarif" && -f "$sarif" && "$sarif" != *$'\n'* ]]; then echo "sarif=${sarif#./}"; fi
} >> "$GITHUB_OUTPUT"
# 3 means that there is nothing to check, which is no failure of the repository.
if [[ "$status" == 3 ]]; then
  echo "::notice title=adapterlint::no adapters found"
  status=0
fi
echo "status=$status" >> "$GITHUB_OUTPUT"
