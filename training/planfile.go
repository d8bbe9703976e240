package training

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// planFile is a plan as people write it.
type planFile struct {
	Run            string      `yaml:"run"`
	Script         string      `yaml:"script"`
	Command        []string    `yaml:"command"`
	Store          string      `yaml:"store"`
	EffectiveBatch int         `yaml:"effective_batch"`
	Models         []planModel `yaml:"models"`
}

type planModel struct {
	Name      string         `yaml:"name"`
	Params    map[string]any `yaml:"params"`
	BatchSize int            `yaml:"batch_size"`
}

// ReadPlan reads a plan file in YAML or JSON. Mistakes are *PlanErrors with
// file and line. Relative paths in it are relative to its folder.
func ReadPlan(path string) (*Plan, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, &PlanError{File: path, Problem: "it cannot be read: " + err.Error(), Hint: "give the path of a plan file"}
	}
	var f planFile
	if err := yaml.UnmarshalWithOptions(data, &f, yaml.Strict()); err != nil {
		return nil, syntax(path, err)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	p := &Plan{Run: f.Run, Store: f.Store, Dir: dir, Settings: Settings{EffectiveBatch: f.EffectiveBatch}}
	lines := newLines(data)
	if err := f.code(p, dir, path, lines); err != nil {
		return nil, err
	}
	for _, m := range f.Models {
		p.Models = append(p.Models, Model{Name: m.Name, Params: m.Params, BatchSize: m.BatchSize})
	}
	if p.Run == "" {
		p.Run = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	return p, f.check(p, path, lines)
}

func (f planFile) code(p *Plan, dir, path string, at lines) error {
	switch {
	case f.Script != "" && len(f.Command) > 0:
		return &PlanError{path, at.of("$.command"), "it has both a script and a command", "keep one of them"}
	case f.Script != "":
		name := f.Script
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		source, err := os.ReadFile(name)
		if err != nil {
			return &PlanError{path, at.of("$.script"), "the script cannot be read: " + err.Error(), "give its path as seen from " + dir}
		}
		p.Code = Code{Kind: CodeScript, Name: name, Source: string(source)}
	case len(f.Command) > 0:
		p.Code = Code{Kind: CodeCommand, Command: f.Command}
	}
	return nil
}

// check names the line of the first mistake that Validate finds.
func (f planFile) check(p *Plan, path string, at lines) error {
	where := func(err error, yamlPath string) error {
		var e *PlanError
		if errors.As(err, &e) {
			e.File, e.Line = path, at.of(yamlPath)
		}
		return err
	}
	if err := checkName("the run's name", p.Run); err != nil {
		return where(err, "$.run")
	}
	seen := map[string]bool{}
	for i, m := range p.Models {
		name := fmt.Sprintf("$.models[%d].name", i)
		if err := checkName("the model's name", m.Name); err != nil {
			return where(err, name)
		}
		if seen[strings.ToLower(m.Name)] {
			return &PlanError{path, at.of(name), fmt.Sprintf("two models are called %q", m.Name), "give each model a name of its own"}
		}
		seen[strings.ToLower(m.Name)] = true
		if m.BatchSize < 0 {
			return &PlanError{path, at.of(fmt.Sprintf("$.models[%d].batch_size", i)), "the batch size is negative", "leave it out, or give a positive number"}
		}
	}
	if f.EffectiveBatch < 0 {
		return &PlanError{path, at.of("$.effective_batch"), "the effective batch is negative", "leave it out, or give a positive number"}
	}
	return nil
}

// syntax turns a YAML error into a *PlanError.
func syntax(path string, err error) error {
	e := &PlanError{File: path, Problem: err.Error(), Hint: "the keys are run, script or command, store, effective_batch, and models with name, params, batch_size"}
	var y yaml.Error
	if errors.As(err, &y) {
		e.Problem = y.GetMessage()
		if t := y.GetToken(); t != nil && t.Position != nil {
			e.Line = t.Position.Line
		}
	}
	return e
}

// lines finds the line of a place in a YAML file.
type lines struct{ file *ast.File }

func newLines(data []byte) lines {
	file, err := parser.ParseBytes(data, 0)
	if err != nil { // it has been read already
		return lines{}
	}
	return lines{file}
}

// of returns the line of a YAML path, or 0.
func (l lines) of(path string) int {
	if l.file == nil {
		return 0
	}
	p, err := yaml.PathString(path)
	if err != nil {
		return 0
	}
	node, err := p.FilterFile(l.file)
	if err != nil || node == nil || node.GetToken() == nil {
		return 0
	}
	return node.GetToken().Position.Line
}

// ParseModels reads a list of models in YAML or JSON: names, objects with a
// name whose other keys are parameters, or one object of name to parameters.
// where names the source in errors.
func ParseModels(data []byte, where string) ([]Model, error) {
	var v any
	if err := yaml.UnmarshalWithOptions(data, &v, yaml.UseOrderedMap()); err != nil {
		return nil, syntax(where, err)
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
				return nil, modelsError(where, fmt.Sprintf("entry %d: %v", i+1, err))
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
func oneModel(fields map[string]any) (Model, error) {
	name, ok := fields["name"].(string)
	if !ok {
		return Model{}, errors.New("it has no name")
	}
	m := Model{Name: name}
	if params, ok := fields["params"].(map[string]any); ok {
		m.Params = params
		if n, ok := fields["batch_size"]; ok {
			if _, err := fmt.Sscan(fmt.Sprint(n), &m.BatchSize); err != nil {
				return m, errors.New("its batch_size is no number")
			}
		}
		return m, nil
	}
	m.Params = map[string]any{}
	for k, v := range fields {
		if k != "name" {
			m.Params[k] = v
		}
	}
	return m, nil
}

func modelsError(where, problem string) error {
	return &PlanError{File: where, Problem: problem, Hint: `a list of models is ["a", "b"], or [{"name": "a", "lr": 0.1}, ...]`}
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
