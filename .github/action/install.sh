#!/usr/bin/env bash
# Installs adapterlint into an environment of its own. Inputs come from the environment, never from the command line.
set -euo pipefail

if [[ -n "$ADAPTERLINT_VERSION" && ! "$ADAPTERLINT_VERSION" =~ ^[0-9]+(\.[0-9]+)*((a|b|rc)[0-9]+)?$ ]]; then
  echo "::error title=adapterlint::version must be a release number such as 0.1.0"
  exit 2
fi
python3 -m venv "$RUNNER_TEMP/adapterlint"
if [[ -n "$ADAPTERLINT_VERSION" ]]; then
  requirement="adapterlint==$ADAPTERLINT_VERSION"
else
  requirement="$ADAPTERLINT_SOURCE"
fi
"$RUNNER_TEMP/adapterlint/bin/python" -m pip install --quiet --disable-pip-version-check -- "$requirement"
