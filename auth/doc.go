// Package auth says who is calling, and what they may.
package auth
