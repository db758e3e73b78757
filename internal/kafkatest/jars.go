package kafkatest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// jars returns the folder with the server's jars, fetched by Maven at the first time for each content of the POM.
func jars() (string, error) {
	pom, err := findPOM()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(pom)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	dir := filepath.Join(cache, "kaptar", "kafka-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil // it got its name when it was whole
	}
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return "", errors.New("mvn, which fetches the server, is not on the PATH")
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	part, err := os.MkdirTemp(filepath.Dir(dir), "part-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(part)
	cmd := exec.Command(mvn, "-q", "-B", "-f", pom, "dependency:copy-dependencies", "-DoutputDirectory="+part, "-DincludeScope=runtime")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch the server: mvn: %w: %s", err, bytes.TrimSpace(out))
	}
	if found, _ := filepath.Glob(filepath.Join(part, "kafka_*.jar")); len(found) == 0 {
		return "", errors.New("fetch the server: mvn copied no kafka_*.jar")
	}
	if err := os.Chmod(part, 0o755); err != nil {
		return "", err
	}
	if err := os.Rename(part, dir); err != nil {
		if _, there := os.Stat(dir); there == nil { // another test process was faster
			return dir, nil
		}
		return "", err
	}
	return dir, nil
}

// findPOM looks for tools/kafka/pom.xml from the working folder upwards: tests run in their package's folder.
func findPOM() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		pom := filepath.Join(dir, "tools", "kafka", "pom.xml")
		if _, err := os.Stat(pom); err == nil {
			return pom, nil
		}
		if filepath.Dir(dir) == dir {
			return "", errors.New("tools/kafka/pom.xml is in no folder above")
		}
		dir = filepath.Dir(dir)
	}
}
