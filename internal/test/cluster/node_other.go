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

// Containerd returns nothing on this system.
func (c *Cluster) Containerd() string { return "" }

func (c *Cluster) startNode() error          { return errors.ErrUnsupported }
func (c *Cluster) inside(func() error) error { return errors.ErrUnsupported }
func sweep(dir string) error                 { return os.RemoveAll(dir) }
