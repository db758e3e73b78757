package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/internal/test/servers"
)

// The parts of manifests that are looked at.
type (
	manifest struct {
		Kind     string
		Metadata struct {
			Name, Namespace string
			Labels          map[string]string
		}
		Data, StringData map[string]string
		Spec             manifestSpec
		Subjects         []struct{ Name string }
		Rules            []struct{ APIGroups, Resources, Verbs []string }
	}
	manifestSpec struct {
		Replicas       *int
		Selector       map[string]any
		PodSelector    map[string]any
		MaxUnavailable int
		MinReplicas    int
		ScaleTargetRef struct{ Name string }
		Strategy       struct {
			RollingUpdate *struct {
				MaxUnavailable *int
			}
		}
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     podSpec
		}
		Ports   []manifestPort
		Ingress []struct {
			From []struct {
				PodSelector struct {
					MatchLabels map[string]string
				}
			}
		}
	}
	manifestPort struct {
		Name          string
		Port          int
		ContainerPort int
	}
	podSpec struct {
		ServiceAccountName            string
		EnableServiceLinks            *bool
		TerminationGracePeriodSeconds int
		SecurityContext               struct {
			RunAsNonRoot   bool
			RunAsUser      int
			SeccompProfile struct{ Type string }
		}
		TopologySpreadConstraints []any
		InitContainers            []any
		HostNetwork               bool
		Containers                []container
		Volumes                   []map[string]any
	}
	container struct {
		Image           string
		Args            []string
		Ports           []manifestPort
		SecurityContext struct {
			ReadOnlyRootFilesystem   bool
			AllowPrivilegeEscalation *bool
			Privileged               bool
			Capabilities             struct{ Add, Drop []string }
		}
		Resources                                   struct{ Requests, Limits map[string]string }
		StartupProbe, ReadinessProbe, LivenessProbe *probe
		Lifecycle                                   struct {
			PreStop struct{ Sleep struct{ Seconds int } }
		}
		Env []struct {
			Name, Value string
			ValueFrom   any
		}
		EnvFrom []struct {
			ConfigMapRef, SecretRef *struct{ Name string }
		}
	}
	probe struct {
		HTTPGet struct{ Path, Port, Scheme string }
	}
)

// manifests are the objects of an overlay by kind and name.
type manifests map[string]manifest

// kustomize renders an overlay of deploy/kubernetes.
func kustomize(t *testing.T, overlay string) manifests {
	t.Helper()
	args := []string{"kubectl", "kustomize", "../deploy/kubernetes/overlays/" + overlay}
	program, _, err := servers.Cluster() // whose first argument is a program's name
	if err != nil {
		if program, err = exec.LookPath("kubectl"); err != nil {
			t.Skip("there is no kubectl, which has kustomize: go run ./tools/servers install cluster, or your system's package")
		}
		args = args[1:]
	}
	out, err := exec.CommandContext(t.Context(), program, args...).Output()
	if err != nil {
		if failed, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, failed.Stderr)
		}
		t.Fatal(err)
	}
	all := make(manifests)
	for d := yaml.NewDecoder(bytes.NewReader(out)); ; {
		var object map[string]any
		if err := d.Decode(&object); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		var m manifest
		if err := json.Unmarshal(text, &m); err != nil { // which takes names in any capitals
			t.Fatalf("%s: %v", text, err)
		}
		all[m.Kind+" "+m.Metadata.Name] = m
	}
}

// callers are the services that call each one, besides those that fetch user-service's keys.
func callers() map[string][]string {
	return map[string][]string{
		"gateway": nil, "user-service": {"gateway", "order-service"}, "order-service": {"gateway"},
		"inventory-service": {"gateway", "order-service"}, "payment-service": {"gateway", "order-service"},
		"notification-service": {"gateway"}, "analytics-service": {"gateway"}, "bank": {"gateway", "payment-service"},
	}
}

// deployed are the services that have a place in a cluster: all but those who play its customers.
func deployed() []kaptar.Service {
	return slices.DeleteFunc(services(), func(s kaptar.Service) bool { return s.Name == "customers" })
}

func TestManifests(t *testing.T) {
	t.Parallel()
	for _, overlay := range []string{"local", "production"} {
		t.Run(overlay, func(t *testing.T) {
			t.Parallel()
			all := kustomize(t, overlay)
			for _, key := range slices.Sorted(maps.Keys(all)) {
				all.checkRestricted(t, key)
				if name, ok := strings.CutPrefix(key, "Deployment "); ok && all[key].Metadata.Labels["app.kubernetes.io/part-of"] == "shop" {
					if !slices.ContainsFunc(deployed(), func(s kaptar.Service) bool { return s.Name == name }) {
						t.Errorf("%s is no service of the shop", key)
					}
				}
			}
			for _, s := range deployed() {
				all.checkService(t, s)
			}
			all.checkOnce(t)
		})
	}
}

// checkOnce looks at what there is one of.
func (all manifests) checkOnce(t *testing.T) {
	t.Helper()
	if got := all["Namespace shop"].Metadata.Labels["pod-security.kubernetes.io/enforce"]; got != "restricted" {
		t.Errorf("the namespace enforces %q, want restricted", got)
	}
	if got := fmt.Sprint(all["Role discovery"].Rules); got != "[{[discovery.k8s.io] [endpointslices] [get list watch]} {[] [pods] [get list watch]}]" {
		t.Errorf("discovery may %s", got)
	}
	if deny := all["NetworkPolicy default-deny"]; deny.Spec.PodSelector == nil || len(deny.Spec.PodSelector) != 0 || len(deny.Spec.Ingress) != 0 {
		t.Errorf("default-deny is %+v", deny.Spec)
	}
	databases, err := os.ReadFile("../deploy/postgres/databases.sql")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]string)
	for _, s := range deployed() {
		secret, job := all["Secret "+s.Name+"-database"], all["Job "+s.Name+"-migration"]
		has := strings.Contains(string(databases), "CREATE DATABASE "+strings.ReplaceAll(s.Name, "-", "_")+";")
		if has != (secret.Kind != "") || has != (job.Kind != "") {
			t.Errorf("%s: database %v, secret %v, migration %v", s.Name, has, secret.Kind != "", job.Kind != "")
		}
		if !has {
			continue
		}
		if url := secret.Data["DATABASE_URL"]; seen[url] != "" || url == "" {
			t.Errorf("%s and %q have the same database", s.Name, seen[url])
		} else {
			seen[url] = s.Name
		}
		c := job.Spec.Template.Spec.Containers[0]
		if fmt.Sprint(c.Args) != "[migrate "+s.Name+"]" || c.Image != all["Deployment "+s.Name].Spec.Template.Spec.Containers[0].Image {
			t.Errorf("the migration of %s runs %s of %s", s.Name, c.Args, c.Image)
		}
	}
}

// checkRestricted holds the pods of an object against PodSecurity's profile restricted, with a root
// that cannot be written.
func (all manifests) checkRestricted(t *testing.T, key string) {
	t.Helper()
	m := all[key]
	if m.Metadata.Namespace != "shop" && m.Kind != "Namespace" {
		t.Errorf("%s is in the namespace %q", key, m.Metadata.Namespace)
	}
	pod := m.Spec.Template.Spec
	if (m.Kind == "Deployment" || m.Kind == "Job") != (len(pod.Containers) > 0) {
		t.Errorf("%s has %d containers", key, len(pod.Containers))
	}
	if len(pod.Containers) == 0 {
		return
	}
	if s := pod.SecurityContext; !s.RunAsNonRoot || s.RunAsUser != 65532 || s.SeccompProfile.Type != "RuntimeDefault" || pod.HostNetwork {
		t.Errorf("%s: its pod is %+v", key, s)
	}
	if pod.EnableServiceLinks == nil || *pod.EnableServiceLinks || len(pod.InitContainers) > 0 {
		t.Errorf("%s: service links %v, init containers %v", key, pod.EnableServiceLinks, pod.InitContainers)
	}
	for _, v := range pod.Volumes {
		delete(v, "name")
		for kind := range v {
			if !slices.Contains([]string{"emptyDir", "configMap", "secret", "csi"}, kind) {
				t.Errorf("%s: a volume is a %s", key, kind)
			}
		}
	}
	for _, c := range pod.Containers {
		s := c.SecurityContext
		if !s.ReadOnlyRootFilesystem || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.Privileged ||
			fmt.Sprint(s.Capabilities.Drop) != "[ALL]" || len(s.Capabilities.Add) > 0 {
			t.Errorf("%s: a container has %+v", key, s)
		}
		if r := c.Resources; r.Requests["cpu"] == "" || r.Requests["memory"] == "" || r.Limits["memory"] == "" {
			t.Errorf("%s: resources are %+v", key, r)
		}
		if name, version, _ := strings.Cut(c.Image, ":"); !strings.Contains(name, "/") || version == "" || version == "latest" {
			t.Errorf("%s: image %q, want a version of one in a registry", key, c.Image)
		}
	}
}

func (all manifests) checkService(t *testing.T, s kaptar.Service) {
	t.Helper()
	m := all["Deployment "+s.Name]
	if m.Kind == "" {
		t.Errorf("%s is not deployed", s.Name)
		return
	}
	pod, labels := m.Spec.Template.Spec, m.Spec.Template.Metadata.Labels
	c := pod.Containers[0]
	if labels["app.kubernetes.io/name"] != s.Name || !strings.HasSuffix(c.Image, ":"+labels["app.kubernetes.io/version"]) {
		t.Errorf("%s: labels %v of the image %s", s.Name, labels, c.Image)
	}
	if fmt.Sprint(c.Args) != "[run "+s.Name+"]" || pod.ServiceAccountName != s.Name || all["ServiceAccount "+s.Name].Kind == "" {
		t.Errorf("%s: runs %s as %s", s.Name, c.Args, pod.ServiceAccountName)
	}
	if r := m.Spec.Strategy.RollingUpdate; r == nil || r.MaxUnavailable == nil || *r.MaxUnavailable != 0 || m.Spec.Replicas != nil {
		t.Errorf("%s: an update takes instances away before there are new ones, or fights with the autoscaler", s.Name)
	}
	if len(pod.TopologySpreadConstraints) == 0 {
		t.Errorf("%s: its instances may all be on one node", s.Name)
	}
	env := all.environment(t, c)
	stop, err := time.ParseDuration(env["SHUTDOWN_TIMEOUT"])
	if err != nil || c.Lifecycle.PreStop.Sleep.Seconds < 2 || time.Duration(pod.TerminationGracePeriodSeconds-c.Lifecycle.PreStop.Sleep.Seconds)*time.Second < stop+5*time.Second {
		t.Errorf("%s: %d s before SIGKILL, of which %d before SIGTERM, %v for the stop: %v",
			s.Name, pod.TerminationGracePeriodSeconds, c.Lifecycle.PreStop.Sleep.Seconds, stop, err)
	}
	for path, probes := range map[string][]*probe{"/livez": {c.StartupProbe, c.LivenessProbe}, "/readyz": {c.ReadinessProbe}} {
		for _, p := range probes {
			if p == nil || p.HTTPGet.Path != path || p.HTTPGet.Port != "http" || (p.HTTPGet.Scheme == "HTTPS") != (env["TLS_CERT"] != "") {
				t.Errorf("%s: a probe of %s is %+v", s.Name, path, p)
			}
		}
	}
	all.checkPorts(t, s, c)
	all.checkAround(t, s)
	checkSettings(t, s, env)
}

// checkPorts compares the ports of the pod and of the Service with those that the service listens
// on.
func (all manifests) checkPorts(t *testing.T, s kaptar.Service, c container) {
	t.Helper()
	want := map[string]string{"http": s.Listen}
	if s.GRPCListen != "" {
		want["grpc"] = s.GRPCListen
	}
	inPod, outside := make(map[string]string), make(map[string]string)
	for _, p := range c.Ports {
		inPod[p.Name] = fmt.Sprintf(":%d", p.ContainerPort)
	}
	service := all["Service "+s.Name]
	for _, p := range service.Spec.Ports {
		outside[p.Name] = fmt.Sprintf(":%d", p.Port)
	}
	if !maps.Equal(inPod, want) || !maps.Equal(outside, want) {
		t.Errorf("%s: ports %v of the pod and %v of the Service, want %v", s.Name, inPod, outside, want)
	}
	if got := fmt.Sprint(service.Spec.Selector); got != "map[app.kubernetes.io/name:"+s.Name+"]" {
		t.Errorf("the Service %s selects %s, want every version", s.Name, got)
	}
}

// checkAround looks at what stands beside a Deployment.
func (all manifests) checkAround(t *testing.T, s kaptar.Service) {
	t.Helper()
	selector := "map[matchLabels:map[app.kubernetes.io/name:" + s.Name + "]]"
	if b := all["PodDisruptionBudget "+s.Name].Spec; b.MaxUnavailable != 1 || fmt.Sprint(b.Selector) != selector {
		t.Errorf("%s: its PodDisruptionBudget is %+v", s.Name, b)
	}
	if h := all["HorizontalPodAutoscaler "+s.Name].Spec; h.MinReplicas < 2 || h.ScaleTargetRef.Name != s.Name {
		t.Errorf("%s: its HorizontalPodAutoscaler is %+v", s.Name, h)
	}
	if !slices.ContainsFunc(all["RoleBinding discovery"].Subjects, func(a struct{ Name string }) bool { return a.Name == s.Name }) {
		t.Errorf("%s may not read where others are", s.Name)
	}
	n := all["NetworkPolicy "+s.Name].Spec
	if fmt.Sprint(n.PodSelector) != selector || len(n.Ingress) != 1 {
		t.Errorf("%s: its NetworkPolicy is %+v", s.Name, n)
		return
	}
	var may []string
	for _, from := range n.Ingress[0].From {
		for _, name := range from.PodSelector.MatchLabels {
			may = append(may, name)
		}
	}
	want := callers()[s.Name]
	if s.Name == "user-service" {
		want = []string{"shop"} // all of it: whoever checks a token
	}
	if !slices.Equal(may, want) {
		t.Errorf("%s may be called by %v, want %v", s.Name, may, want)
	}
}

// environment are the variables of a container.
func (all manifests) environment(t *testing.T, c container) map[string]string {
	t.Helper()
	env := make(map[string]string)
	for _, from := range c.EnvFrom {
		switch {
		case from.ConfigMapRef != nil:
			maps.Copy(env, all["ConfigMap "+from.ConfigMapRef.Name].Data)
		case from.SecretRef != nil:
			m := all["Secret "+from.SecretRef.Name]
			if m.Kind == "" {
				t.Errorf("there is no Secret %s", from.SecretRef.Name)
			}
			for name, value := range m.Data {
				env[name] = fromBase64(t, value)
			}
		}
	}
	for _, v := range c.Env {
		env[v.Name] = v.Value
		if v.ValueFrom != nil {
			env[v.Name] = "pod-1"
		}
	}
	return env
}

// checkSettings lets the service read the variables of its pod: each has to be a setting, with a
// value that it takes.
func checkSettings(t *testing.T, s kaptar.Service, env map[string]string) {
	t.Helper()
	var list []string
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	loaded, err := (&kaptar.Options{Sources: config.Sources{Env: list}}).Load(s)
	if err != nil {
		t.Errorf("%s: %v", s.Name, err)
		return
	}
	for _, v := range loaded.Values() {
		name, _ := strings.CutPrefix(v.Origin, "environment ")
		delete(env, name)
	}
	if len(env) > 0 {
		t.Errorf("%s has variables that are no settings of its: %q", s.Name, slices.Sorted(maps.Keys(env)))
	}
}

// TestCanaryManifests: the overlay canary is one Deployment, that of production's overlay or the
// local one but for name, track and version, and the Service has both.
func TestCanaryManifests(t *testing.T) {
	t.Parallel()
	stable, canary := kustomize(t, "local"), kustomize(t, "canary")
	m := canary["Deployment user-service-v2"]
	if len(canary) != 1 || m.Kind == "" {
		t.Fatalf("the canary is %v", slices.Collect(maps.Keys(canary)))
	}
	old := stable["Deployment user-service"]
	if fmt.Sprint(m.Spec.Selector) == fmt.Sprint(old.Spec.Selector) {
		t.Errorf("both Deployments select %v", m.Spec.Selector)
	}
	labels := m.Spec.Template.Metadata.Labels
	if labels["app.kubernetes.io/name"] != "user-service" || labels["app.kubernetes.io/version"] != "v2" || labels["track"] != "canary" {
		t.Errorf("the labels of the canary are %v", labels)
	}
	c, was := m.Spec.Template.Spec.Containers[0], old.Spec.Template.Spec.Containers[0]
	if c.Image != "localhost/shop:v2" {
		t.Errorf("the canary's image is %s", c.Image)
	}
	c.Image = was.Image
	if fmt.Sprintf("%+v", c.EnvFrom[0].ConfigMapRef) != fmt.Sprintf("%+v", was.EnvFrom[0].ConfigMapRef) || fmt.Sprint(c.Args) != fmt.Sprint(was.Args) {
		t.Errorf("the canary runs %+v, want %+v", c, was)
	}
}

func fromBase64(t *testing.T, text string) string {
	t.Helper()
	value, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(value)
}
