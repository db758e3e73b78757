package saga

import (
	"os"
	"testing"

	"github.com/kaptar/kaptar/internal/test/servertest"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(crashURL); url != "" {
		os.Exit(crashChild(url))
	}
	servertest.Main(m)
}
