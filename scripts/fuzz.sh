#!/usr/bin/env bash
# Fuzzes every Fuzz function, one after the other, with as many inputs as are given: scripts/fuzz.sh 50000x
#
# A count, not a time: Go before 1.27 may call a target failed with "context deadline exceeded" when its time is up
# (https://go.dev/issue/75804). What is found is made shorter with a count of tries as well, or it takes a minute each.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly inputs=${1:-50000x}

# Only packages that have some are asked, because asking compiles their tests.
packages=$({ grep -rlE '^func Fuzz' --include='*_test.go' . || true; } | xargs -n1 dirname | sort -u)
for package in $packages; do
	listed=$(go test -list '^Fuzz' "$package") # of its own, so that a package that does not compile ends this
	for target in $(grep '^Fuzz' <<<"$listed"); do
		echo "fuzz: $target in $package for $inputs"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$inputs" -fuzzminimizetime 1000x "$package"
	done
done
