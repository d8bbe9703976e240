//go:build race

package drive_test

// raceDetector says that memory is no measure: the detector takes several times
// as much.
const raceDetector = true
