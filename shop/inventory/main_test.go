package inventory

import (
	"testing"

	"github.com/kaptar/kaptar/internal/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }
