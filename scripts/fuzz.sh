#!/usr/bin/env bash
# Fuzzes every Fuzz function, one after the other, for the time given: scripts/fuzz.sh 10s
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly duration=${1:-10s}

# Only packages that have some are asked, because asking compiles their tests.
packages=$({ grep -rlE '^func Fuzz' --include='*_test.go' . || true; } | xargs -n1 dirname | sort -u)
for package in $packages; do
	listed=$(go test -list '^Fuzz' "$package") # of its own, so that a package that does not compile ends this
	for target in $(grep '^Fuzz' <<<"$listed"); do
		echo "fuzz: $target in $package for $duration"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$duration" "$package"
	done
done
