package training

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// A document is a YAML file that has been read, and knows the lines of what it
// holds.
type document struct {
	path string
	hint string // what to do about a mistake in its form
	file *ast.File
}

// parseYAML reads a file in YAML or JSON. path names it in errors, which are
// *PlanErrors with the given hint.
func parseYAML(data []byte, path, hint string) (*document, error) {
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, (&document{path: path, hint: hint}).wrong(err)
	}
	if len(file.Docs) > 1 {
		return nil, &PlanError{path, file.Docs[1].GetToken().Position.Line, "a second document begins here", "keep one in each file"}
	}
	for _, doc := range file.Docs {
		if doc.Body != nil {
			ast.Walk(numbers{}, doc.Body)
		}
	}
	return &document{path, hint, file}, nil
}

// decode puts what d holds into v.
func (d *document) decode(v any, options ...yaml.DecodeOption) error {
	if len(d.file.Docs) == 0 || d.file.Docs[0].Body == nil {
		return nil // it is empty
	}
	if err := yaml.NodeToValue(d.file.Docs[0].Body, v, options...); err != nil {
		return d.wrong(err)
	}
	return nil
}

// line returns the line of a YAML path, or 0.
func (d *document) line(path string) int {
	p, err := yaml.PathString(path)
	if err != nil {
		return 0
	}
	node, err := p.FilterFile(d.file)
	if err != nil || node == nil || node.GetToken() == nil {
		return 0
	}
	return node.GetToken().Position.Line
}

// wrong turns a YAML error into a *PlanError.
func (d *document) wrong(err error) error {
	e := &PlanError{File: d.path, Problem: err.Error(), Hint: d.hint}
	if y, ok := errors.AsType[yaml.Error](err); ok {
		e.Problem = y.GetMessage()
		if t := y.GetToken(); t != nil && t.Position != nil {
			e.Line = t.Position.Line
		}
	}
	if kind, ok := errors.AsType[*yaml.TypeError](err); ok && kind.Token != nil {
		e.Problem = fmt.Sprintf("%s is expected here, not %q", kindOf(kind.DstType), kind.Token.Value)
	}
	return e
}

// kindOf says in plain words what a field holds.
func kindOf(t reflect.Type) string {
	switch t.Kind() { //nolint:exhaustive // the fields of a plan have no others
	case reflect.Int:
		return "a whole number"
	case reflect.String:
		return "a text"
	case reflect.Slice:
		return "a list"
	}
	return "an object"
}

// numbers makes numbers of what YAML 1.2 and JSON call numbers, and the library
// calls texts: 1e-5, the usual way to write a learning rate.
type numbers struct{}

// Visit implements ast.Visitor.
func (n numbers) Visit(node ast.Node) ast.Visitor {
	switch node := node.(type) {
	case *ast.MappingValueNode:
		if f := exponent(node.Value); f != nil {
			node.Value = f
		}
	case *ast.SequenceNode:
		for i, each := range node.Values {
			if f := exponent(each); f != nil {
				node.Values[i] = f
			}
		}
	}
	return n
}

// exponent returns the number that a plain text is, or nil.
func exponent(node ast.Node) *ast.FloatNode {
	text, ok := node.(*ast.StringNode)
	if !ok || text.Token.Type != token.StringType || !regexp.MustCompile(`^[-+]?[0-9]+[eE][-+]?[0-9]+$`).MatchString(text.Value) {
		return nil
	}
	v, err := strconv.ParseFloat(text.Value, 64)
	if err != nil {
		return nil
	}
	return &ast.FloatNode{BaseNode: text.BaseNode, Token: text.Token, Value: v}
}

// finite reports whether v holds no number that JSON lacks.
func finite(v any) bool {
	switch v := v.(type) {
	case float64:
		return !math.IsNaN(v) && !math.IsInf(v, 0)
	case map[string]any:
		for _, each := range v {
			if !finite(each) {
				return false
			}
		}
	case []any:
		for _, each := range v {
			if !finite(each) {
				return false
			}
		}
	}
	return true
}
