//go:build !nolocal

package main

import "github.com/kaptar/kaptar/local"

func main() { local.Main(services()...) }
