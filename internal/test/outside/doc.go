// Package outside tests that a person outside of this repository can add the parts that most
// systems need by public API alone (authentication, CORS, a rate limit, a section of settings, a
// consumer group, a broker): a module of its own, in testdata, is built against this one and
// its tests are run.
package outside
