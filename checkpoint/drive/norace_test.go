//go:build !race

package drive_test

// raceDetector is not at work.
const raceDetector = false
