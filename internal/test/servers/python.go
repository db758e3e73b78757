package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// Python returns the path of a Python that has what test/interop/requirements.txt names. Its error wraps ErrMissing.
func Python() (string, error) {
	_, cache, err := requirements()
	if err == nil {
		python := filepath.Join(cache, "bin", "python")
		if _, err = os.Stat(python); err == nil {
			return python, nil
		}
	}
	return "", fmt.Errorf("%w: Python with its packages: %w", ErrMissing, err)
}

// InstallPython makes that Python, a virtual environment in the user's cache folder, if it is not there.
func InstallPython(ctx context.Context, progress io.Writer) error {
	if _, err := Python(); err == nil {
		return nil
	}
	file, cache, err := requirements()
	if err != nil {
		return fmt.Errorf("servers: install python: %w", err)
	}
	if exec.CommandContext(ctx, "python3", "-m", "ensurepip", "--version").Run() != nil {
		if err := packages("python3", "python3-venv")(ctx, progress); err != nil {
			return fmt.Errorf("servers: install python: %w", err)
		}
	}
	// A virtual environment holds its own path, so it is made in its place.
	err = locked(cache+".lock", func() error {
		if _, err := Python(); err == nil {
			return nil // another process was faster
		}
		fmt.Fprintf(progress, "pip install -r %s\n", file)
		if err := quiet(exec.CommandContext(ctx, "python3", "-m", "venv", "--clear", cache)); err != nil {
			return err
		}
		python := filepath.Join(cache, "bin", "python")
		if err := quiet(exec.CommandContext(ctx, python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", file)); err != nil {
			return errors.Join(err, os.RemoveAll(cache))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("servers: install python: %w", err)
	}
	return nil
}

// requirements returns the list of Python's packages, and the folder of the cache that they are installed in.
func requirements() (file, cache string, err error) {
	if file, err = repository("test/interop/requirements.txt"); err != nil {
		return "", "", err
	}
	cache, err = cached("python", file)
	return file, cache, err
}
