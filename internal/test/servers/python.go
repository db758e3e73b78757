package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Python returns the path of a Python that has what test/interop/requirements.txt names. Its error
// wraps ErrMissing.
func Python() (string, error) {
	path, err := findPython()
	if err != nil {
		return "", fmt.Errorf("%w: Python with its packages: %w", ErrMissing, err)
	}
	return path, nil
}

func python() recipe {
	return recipe{
		find: findPython, fetch: fetchPython, from: "packages by pip, test/interop/requirements.txt", minutes: 1, gigabytes: 0.2,
		debian: []debianPackage{{"python3", onPath("python3")}, {"python3-venv", func() bool {
			return exec.Command("python3", "-m", "ensurepip", "--version").Run() == nil
		}}},
	}
}

func findPython() (string, error) {
	_, cache, err := requirements()
	if err != nil {
		return "", err
	}
	python := filepath.Join(cache, "bin", "python")
	_, err = os.Stat(python)
	return python, err
}

// fetchPython makes a virtual environment, which holds its own path, so it is made in its place.
func fetchPython(ctx context.Context, progress func(line string)) error {
	file, cache, err := requirements()
	if err != nil {
		return err
	}
	return locked(cache+".lock", func() error {
		if _, err := findPython(); err == nil {
			return nil // another process was faster
		}
		if err := follow(exec.CommandContext(ctx, "python3", "-m", "venv", "--clear", cache), progress); err != nil {
			return err
		}
		python := filepath.Join(cache, "bin", "python")
		if err := follow(exec.CommandContext(ctx, python, "-m", "pip", "install", "--disable-pip-version-check", "-r", file), progress); err != nil {
			return errors.Join(err, os.RemoveAll(cache))
		}
		return nil
	})
}

// requirements returns the list of Python's packages, and the folder of the cache that they are
// installed in.
func requirements() (file, cache string, err error) {
	if file, err = repository("test/interop/requirements.txt"); err != nil {
		return "", "", err
	}
	cache, err = versioned("python", file)
	return file, cache, err
}
