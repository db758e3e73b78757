//go:build !linux

package cluster

import (
	"context"
	"errors"
	"net"
	"os"
)

const selfName = "kaptar-cluster-node"

// Init does nothing on this system.
func Init() {}

// Dial returns an error on this system.
func (c *Cluster) Dial(context.Context, string, string) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}

func (c *Cluster) startNode() error   { return errors.ErrUnsupported }
func (c *Cluster) containerd() string { return "" }
func sweep(dir string) error          { return os.RemoveAll(dir) }
