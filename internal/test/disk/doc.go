// Package disk gives tests disks of their own on Linux: one that is soon full, and one that loses its
// power. To make them takes the right to mount, which root has; a test that does not have it is
// skipped. Where anything else is missing (loop devices, mkfs.ext4) the test is skipped too, and fails
// when CI is set in the environment.
package disk
