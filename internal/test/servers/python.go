package servers

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// pythonPackages lists what tests import in Python.
const pythonPackages = "test/interop/requirements.txt"

// Python returns the path of a Python that has what test/interop/requirements.txt names. Its error
// wraps ErrMissing.
func Python() (string, error) {
	path, err := python().look()
	if err != nil {
		return "", fmt.Errorf("%w: Python with its packages: %w", ErrMissing, err)
	}
	return path, nil
}

func python() recipe {
	return recipe{
		product: product{
			name: "python", from: "packages by pip, " + pythonPackages, sources: []string{pythonPackages}, program: "bin/python", make: fetchPython,
		},
		minutes: 1, gigabytes: 0.2,
		debian: []debianPackage{{"python3", onPath("python3")}, {"python3-venv", func() bool {
			return exec.Command("python3", "-m", "ensurepip", "--version").Run() == nil
		}}},
	}
}

// fetchPython makes a virtual environment. Its python finds the packages wherever the folder is
// moved to, unlike the scripts beside it.
func fetchPython(ctx context.Context, part string, progress func(line string)) error {
	list, err := Repository(pythonPackages)
	if err != nil {
		return err
	}
	if err := follow(exec.CommandContext(ctx, "python3", "-m", "venv", part), progress); err != nil {
		return err
	}
	python := filepath.Join(part, "bin", "python")
	return follow(exec.CommandContext(ctx, python, "-m", "pip", "install", "--disable-pip-version-check", "-r", list), progress)
}
