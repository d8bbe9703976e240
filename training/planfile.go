package training

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
)

// planHint is what to do about a plan that has another form.
const planHint = "the keys are run, script or command, store, effective_batch, parallel, and models with name, params, batch_size"

// planFile is a plan as people write it.
type planFile struct {
	Run            string      `yaml:"run"`
	Script         string      `yaml:"script"`
	Command        []string    `yaml:"command"`
	Store          string      `yaml:"store"`
	EffectiveBatch int         `yaml:"effective_batch"`
	Parallel       any         `yaml:"parallel"` // a number, or auto
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
	doc, err := parseYAML(data, path, planHint)
	if err != nil {
		return nil, err
	}
	var f planFile
	if err := doc.decode(&f, yaml.Strict()); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	p := &Plan{Run: f.Run, Store: f.Store, Dir: dir, File: path, Settings: Settings{EffectiveBatch: f.EffectiveBatch}}
	if p.Store != "" && !hasScheme(p.Store) && !filepath.IsAbs(p.Store) {
		p.Store = filepath.Join(dir, p.Store)
	}
	if f.Parallel != nil {
		if p.Settings.Parallel, err = ParseParallel(fmt.Sprint(f.Parallel)); err != nil {
			return nil, &PlanError{path, doc.line("$.parallel"), err.Error(), "write  parallel: 2  or  parallel: auto, or leave it out"}
		}
	}
	if err := f.code(p, doc); err != nil {
		return nil, err
	}
	for _, m := range f.Models {
		p.Models = append(p.Models, Model{Name: m.Name, Params: m.Params, BatchSize: m.BatchSize})
	}
	if p.Run == "" {
		p.Run = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	if err := f.check(p, doc); err != nil {
		return nil, err
	}
	return p, nil
}

func (f planFile) code(p *Plan, doc *document) error {
	switch {
	case f.Script != "" && len(f.Command) > 0:
		return &PlanError{doc.path, doc.line("$.command"), "it has both a script and a command", "keep one of them"}
	case f.Script != "":
		name := f.Script
		if !filepath.IsAbs(name) {
			name = filepath.Join(p.Dir, name)
		}
		source, err := os.ReadFile(name)
		if err != nil {
			return &PlanError{doc.path, doc.line("$.script"), "the script cannot be read: " + err.Error(), "give its path as seen from " + p.Dir}
		}
		p.Code = Code{Kind: CodeScript, Name: name, Source: string(source)}
	case len(f.Command) > 0:
		p.Code = Code{Kind: CodeCommand, Command: f.Command}
	}
	return nil
}

// check returns the first mistake that shows in the file itself, with its line.
// What may be told beside it, on the command line, is Validate's business.
func (f planFile) check(p *Plan, doc *document) error {
	at := func(path, problem, hint string) error { return &PlanError{doc.path, doc.line(path), problem, hint} }
	if err := checkName("the run's name", p.Run); err != nil {
		if f.Run == "" {
			return at("$", fmt.Sprintf("the file's name, %q, cannot name a run", p.Run), "add a line such as  run: digits")
		}
		return at("$.run", err.Problem, err.Hint)
	}
	if f.EffectiveBatch < 0 {
		return at("$.effective_batch", "the effective batch is negative", "leave it out, or give a positive number")
	}
	seen := map[string]bool{}
	for i, m := range p.Models {
		place := fmt.Sprintf("$.models[%d]", i)
		if m.Name == "" {
			return at(place, fmt.Sprintf("model %d has no name", i+1), "give each model a name of its own")
		}
		if err := checkName("the model's name", m.Name); err != nil {
			return at(place+".name", err.Problem, err.Hint)
		}
		if seen[strings.ToLower(m.Name)] {
			return at(place+".name", fmt.Sprintf("two models are called %q", m.Name), "give each model a name of its own; upper and lower case are the same")
		}
		seen[strings.ToLower(m.Name)] = true
		if m.BatchSize < 0 {
			return at(place+".batch_size", "the batch size is negative", "leave it out, or give a positive number")
		}
		for key, v := range m.Params {
			if !finite(v) {
				return at(place+".params."+key, fmt.Sprintf("the parameter %s of %s is no finite number", key, m.Name), "write it as a text, such as \"inf\", and read that in the code")
			}
		}
	}
	return nil
}

// hasScheme reports whether a store is named by a URL, such as drive:Folder, and
// not by a path.
func hasScheme(store string) bool {
	return regexp.MustCompile(`^[a-z][a-z0-9+.-]+:`).MatchString(store)
}
