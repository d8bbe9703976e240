//go:build !race && unix

package kernel_test

const raceEnabled = false
