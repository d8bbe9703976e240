//go:build race && unix

package kernel_test

const raceEnabled = true
