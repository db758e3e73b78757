// Package outside tests that a person outside of this repository can add the parts that most
// systems need by public API alone: a module of its own, in testdata, is built against this one and
// its tests are run.
package outside
