//go:build race

package transport_test

// raceDetector is on, and allocates.
const raceDetector = true
