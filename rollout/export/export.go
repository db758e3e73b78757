package export

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/kaptar/kaptar/rollout"
)

// Options are the names in the cluster. Zero values are the defaults.
type Options struct {
	// Service is the name of the service, its Deployment and its Service; required.
	Service string

	// Namespace is that of all objects; default: none, so kubectl's applies.
	Namespace string

	// Replicas is the number of instances; default 5. Without Gateway a weight is a share of them.
	Replicas int

	// Prometheus is the address that Argo Rollouts queries; default http://prometheus:9090. It must
	// store the name of the pod as the label "pod".
	Prometheus string

	// Gateway is the name of a Gateway; default: none. With it an HTTPRoute shares the traffic, for
	// which Argo Rollouts needs the plugin argoproj-labs/gatewayAPI.
	Gateway string

	// Port is that of the Service for HTTP; default 80.
	Port int
}

// names of objects in a cluster, RFC 1123.
var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?$`)

func (o Options) withDefaults() (Options, error) {
	for name, v := range map[string]string{"service": o.Service, "namespace": o.Namespace, "gateway": o.Gateway} {
		if !dnsLabel.MatchString(v) && (v != "" || name == "service") {
			return o, fmt.Errorf("export: %s: %q: expected lower-case letters, digits and dashes, such as user-service", name, v)
		}
	}
	if o.Replicas < 0 || o.Port < 0 || o.Port > math.MaxUint16 {
		return o, fmt.Errorf("export: %d replicas, port %d: expected 1 or more", o.Replicas, o.Port)
	}
	o.Replicas, o.Port = cmp.Or(o.Replicas, 5), cmp.Or(o.Port, 80)
	o.Prometheus = cmp.Or(o.Prometheus, "http://prometheus:9090")
	return o, nil
}

// object is one of Kubernetes. YAML writes its keys in order of the alphabet.
type object = map[string]any

func (o Options) object(apiVersion, kind, name string, spec object) object {
	meta := object{"name": name}
	if o.Namespace != "" {
		meta["namespace"] = o.Namespace
	}
	return object{"apiVersion": apiVersion, "kind": kind, "metadata": meta, "spec": spec}
}

// Argo returns a plan for Argo Rollouts 1.9 as YAML: a Rollout of the existing Deployment, which
// Argo scales down, an AnalysisTemplate, and what the strategy and the gateway need. Its errors say
// what is wrong with plan or opts.
func Argo(plan rollout.Plan, opts Options) ([]byte, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := plan.Check(); err != nil {
		return nil, fmt.Errorf("export: plan: %w", err)
	}
	plan = plan.WithDefaults()
	spec := object{
		"replicas":             o.Replicas,
		"revisionHistoryLimit": 3,
		"workloadRef":          object{"apiVersion": "apps/v1", "kind": "Deployment", "name": o.Service, "scaleDown": "onsuccess"},
	}
	list := []object{o.object("argoproj.io/v1alpha1", "Rollout", o.Service, spec), o.template(plan)}
	if plan.BlueGreen != nil {
		spec["strategy"] = object{"blueGreen": o.blueGreen(plan)}
		return write(append(list, o.service("preview")))
	}
	canary := o.canary(plan)
	spec["strategy"] = object{"canary": canary}
	if o.Gateway != "" {
		canary["stableService"], canary["canaryService"] = o.Service+"-stable", o.Service+"-canary"
		reference := object{"httpRoute": o.Service}
		if o.Namespace != "" {
			reference["namespace"] = o.Namespace
		}
		canary["trafficRouting"] = object{"plugins": object{"argoproj-labs/gatewayAPI": reference}}
		list = append(list, o.service("stable"), o.service("canary"), o.route(map[string]int{"stable": 100, "canary": 0}))
	}
	return write(list)
}

// HTTPRoute returns an HTTPRoute as YAML that gives each version its share of the calls through a
// Service named after service and version. weights are those of rollout.Release, in per cent.
func HTTPRoute(weights map[string]int, opts Options) ([]byte, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if o.Gateway == "" {
		return nil, errors.New("export: gateway: expected the name of the route's Gateway")
	}
	sum := 0
	for version, w := range weights {
		if !dnsLabel.MatchString(version) || w < 0 {
			return nil, fmt.Errorf("export: weight %d of version %q: expected 0 or more, and lower-case letters, digits and dashes", w, version)
		}
		sum += w
	}
	if sum != 100 {
		return nil, fmt.Errorf("export: weights %v: their sum is %d: expected 100", weights, sum)
	}
	return write([]object{o.route(weights)})
}

func write(list []object) ([]byte, error) {
	var out bytes.Buffer
	for i, obj := range list {
		if i > 0 {
			out.WriteString("---\n")
		}
		text, err := yaml.MarshalWithOptions(obj, yaml.IndentSequence(true), yaml.UseLiteralStyleIfMultiline(true))
		if err != nil {
			return nil, fmt.Errorf("export: %w", err)
		}
		out.Write(text)
	}
	return out.Bytes(), nil
}

func (o Options) canary(plan rollout.Plan) object {
	var steps []any
	for _, s := range plan.Canary.Steps {
		switch {
		case s.SetWeight != nil:
			steps = append(steps, object{"setWeight": *s.SetWeight})
		case s.Pause != nil && s.Pause.Duration > 0:
			steps = append(steps, object{"pause": object{"duration": seconds(s.Pause.Duration)}})
		case s.Pause != nil:
			steps = append(steps, object{"pause": object{}})
		case s.Analysis != nil:
			steps = append(steps, object{"analysis": o.analysis()})
		}
	}
	return object{"maxSurge": 1, "maxUnavailable": 0, "steps": steps}
}

func (o Options) blueGreen(plan rollout.Plan) object {
	out := object{
		"activeService": o.Service, "previewService": o.Service + "-preview",
		"autoPromotionEnabled": plan.BlueGreen.AutoPromote, "postPromotionAnalysis": o.analysis(),
	}
	if plan.BlueGreen.AutoPromote {
		out["autoPromotionSeconds"] = int(time.Duration(plan.BlueGreen.AutoPromoteAfter).Seconds())
	}
	return out
}

// analysis calls the template with the pods of both versions, whose names have the hashes.
func (o Options) analysis() object {
	hash := func(name, which string) object {
		return object{"name": name, "valueFrom": object{"podTemplateHashValue": which}}
	}
	return object{
		"templates": []any{object{"templateName": o.Service}},
		"args":      []any{hash("canary-hash", "Latest"), hash("stable-hash", "Stable")},
	}
}

// service selects the pods of one version; Argo adds their hash to the selector.
func (o Options) service(suffix string) object {
	return o.object("v1", "Service", o.Service+"-"+suffix, object{
		"selector": object{"app.kubernetes.io/name": o.Service},
		"ports":    []any{object{"name": "http", "port": o.Port, "targetPort": "http"}},
	})
}

func (o Options) route(weights map[string]int) object {
	versions := make([]string, 0, len(weights))
	for v := range weights {
		versions = append(versions, v)
	}
	slices.SortFunc(versions, func(a, b string) int { return cmp.Or(weights[b]-weights[a], cmp.Compare(a, b)) })
	backends := make([]any, 0, len(weights))
	for _, v := range versions {
		backends = append(backends, object{"name": o.Service + "-" + v, "port": o.Port, "weight": weights[v]})
	}
	return o.object("gateway.networking.k8s.io/v1", "HTTPRoute", o.Service, object{
		"parentRefs": []any{object{"name": o.Gateway}},
		"rules":      []any{object{"backendRefs": backends}},
	})
}

// seconds is a duration as Argo reads it: "90s".
func seconds(d rollout.Duration) string {
	return fmt.Sprintf("%ds", max(1, int(math.Ceil(time.Duration(d).Seconds()))))
}
