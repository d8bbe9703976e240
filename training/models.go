package training

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
)

// ParseModels reads a list of models in YAML or JSON: names, objects with a
// name whose other keys are parameters, or one object of name to parameters.
// where names the source in errors.
func ParseModels(data []byte, where string) ([]Model, error) {
	doc, err := parseYAML(data, where, modelsHint)
	if err != nil {
		return nil, err
	}
	var v any
	if err := doc.decode(&v, yaml.UseOrderedMap()); err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case []any:
		return modelList(v, where)
	case yaml.MapSlice:
		if i := slices.IndexFunc(v, func(e yaml.MapItem) bool { return e.Key == "models" }); i >= 0 && len(v) == 1 {
			if list, ok := v[i].Value.([]any); ok {
				return modelList(list, where)
			}
		}
		var models []Model
		for _, e := range v {
			params, ok := plain(e.Value).(map[string]any)
			if !ok && e.Value != nil {
				return nil, modelsError(where, fmt.Sprintf("the parameters of %v are no object", e.Key))
			}
			models = append(models, Model{Name: fmt.Sprint(e.Key), Params: params})
		}
		return models, nil
	}
	return nil, modelsError(where, "it is no list of models")
}

func modelList(list []any, where string) ([]Model, error) {
	var models []Model
	for i, each := range list {
		switch each := plain(each).(type) {
		case string:
			models = append(models, Model{Name: each})
		case map[string]any:
			m, err := oneModel(each)
			if err != nil {
				return nil, &PlanError{File: where, Problem: fmt.Sprintf("entry %d: %s", i+1, err.Problem), Hint: err.Hint}
			}
			models = append(models, m)
		default:
			return nil, modelsError(where, fmt.Sprintf("entry %d is neither a name nor an object", i+1))
		}
	}
	return models, nil
}

// oneModel reads an object: name, params and batch_size mean what they mean in
// a plan; with no params, all other keys are parameters.
func oneModel(fields map[string]any) (Model, *PlanError) {
	name, ok := fields["name"].(string)
	if !ok {
		return Model{}, &PlanError{Problem: "it has no name", Hint: modelsHint}
	}
	m := Model{Name: name}
	if params, ok := fields["params"].(map[string]any); ok {
		m.Params = params
		if n, ok := fields["batch_size"]; ok {
			var err error
			if m.BatchSize, err = strconv.Atoi(fmt.Sprint(n)); err != nil || m.BatchSize < 1 {
				return m, &PlanError{Problem: fmt.Sprintf("its batch_size is no whole number of samples: %v", n), Hint: "leave it out, or give a positive number"}
			}
		}
		return m, besideParams(fields)
	}
	m.Params = map[string]any{}
	for k, v := range fields {
		if k != "name" {
			m.Params[k] = v
		}
	}
	return m, nil
}

// besideParams refuses keys that would be left out.
func besideParams(fields map[string]any) *PlanError {
	var lost []string
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if key != "name" && key != "params" && key != "batch_size" {
			lost = append(lost, key)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	keys := strings.Join(lost, ", ")
	return &PlanError{
		Problem: "it has params, and beside them " + keys,
		Hint:    "put " + keys + " into params, or leave params out: then all keys beside name are parameters",
	}
}

// modelsHint is what to do about a list of models that is none.
const modelsHint = `a list of models is ["a", "b"], or [{"name": "a", "lr": 0.1}, ...]`

func modelsError(where, problem string) error {
	return &PlanError{File: where, Problem: problem, Hint: modelsHint}
}

// plain turns ordered maps into ordinary ones.
func plain(v any) any {
	switch v := v.(type) {
	case yaml.MapSlice:
		out := make(map[string]any, len(v))
		for _, e := range v {
			out[fmt.Sprint(e.Key)] = plain(e.Value)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, each := range v {
			out[i] = plain(each)
		}
		return out
	}
	return v
}
