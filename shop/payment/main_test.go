package payment

import (
	"testing"

	"github.com/kaptar/kaptar/internal/test/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }
