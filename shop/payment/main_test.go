package payment

import (
	"testing"

	"github.com/kaptar/kaptar/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }
