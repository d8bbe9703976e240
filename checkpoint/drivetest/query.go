package drivetest

import (
	"slices"
	"strings"
)

// A query is what the parameter q asks for: terms joined by "and", of which one
// may be a bracket of terms joined by "or". Drive knows more; a store needs no
// more.
type query struct {
	all []anyOf
}

type anyOf []term

// A term is field, operator and value; for properties, key and value.
type term struct {
	field, op, value, key string
}

// lags reports whether an index answers that is slow to learn.
func (q query) lags() bool {
	return slices.ContainsFunc(q.all, func(any anyOf) bool {
		return slices.ContainsFunc(any, func(t term) bool {
			return t.field == "name" || t.field == "appProperties" || t.field == "properties"
		})
	})
}

// parents returns the ids that the query names as parents.
func (q query) parents() (ids []string) {
	for _, any := range q.all {
		for _, t := range any {
			if t.field == "parents" {
				ids = append(ids, t.value)
			}
		}
	}
	return ids
}

func (q query) matches(f *file, trashed bool) bool {
	for _, any := range q.all {
		if !slices.ContainsFunc(any, func(t term) bool { return t.matches(f, trashed) }) {
			return false
		}
	}
	return true
}

func (t term) matches(f *file, trashed bool) bool {
	var have string
	switch t.field {
	case "parents":
		return f.parent == t.value || t.value == "root" && f.parent == RootID
	case "trashed":
		return (t.value == "true") == trashed == (t.op == "=")
	case "appProperties":
		return !f.foreign && f.appProperties[t.key] == t.value
	case "properties":
		return f.properties[t.key] == t.value
	case "name":
		have = f.name
	case "mimeType":
		have = f.mimeType
	}
	return (have == t.value) == (t.op == "=")
}

// parseQuery reads q.
func parseQuery(q string) (query, *apiError) {
	p := &parser{tokens: tokenize(q)}
	var out query
	if len(p.tokens) == 0 {
		return out, nil // everything
	}
	for {
		var any anyOf
		if p.accept("(") {
			for {
				t, ok := p.term()
				if !ok {
					return out, errValue("q")
				}
				any = append(any, t)
				if !p.accept("or") {
					break
				}
			}
			if !p.accept(")") {
				return out, errValue("q")
			}
		} else {
			t, ok := p.term()
			if !ok {
				return out, errValue("q")
			}
			any = anyOf{t}
		}
		out.all = append(out.all, any)
		if !p.accept("and") {
			break
		}
	}
	if len(p.tokens) > 0 {
		return out, errValue("q")
	}
	return out, nil
}

type parser struct{ tokens []string }

func (p *parser) accept(word string) bool {
	if len(p.tokens) == 0 || p.tokens[0] != word {
		return false
	}
	p.tokens = p.tokens[1:]
	return true
}

func (p *parser) next() string {
	if len(p.tokens) == 0 {
		return ""
	}
	token := p.tokens[0]
	p.tokens = p.tokens[1:]
	return token
}

// value returns a string, which stands in quotes.
func (p *parser) value() (string, bool) {
	return strings.CutPrefix(p.next(), "'")
}

func (p *parser) term() (t term, ok bool) {
	if len(p.tokens) > 0 && strings.HasPrefix(p.tokens[0], "'") { // 'id' in parents
		t.value, _ = p.value()
		t.field = "parents"
		return t, p.accept("in") && p.accept("parents")
	}
	switch t.field = p.next(); t.field {
	case "name", "mimeType":
		t.op = p.next()
		t.value, ok = p.value()
		return t, ok && (t.op == "=" || t.op == "!=")
	case "trashed":
		t.op, t.value = p.next(), p.next()
		return t, (t.op == "=" || t.op == "!=") && (t.value == "true" || t.value == "false")
	case "appProperties", "properties":
		if !p.accept("has") || !p.accept("{") || !p.accept("key") || !p.accept("=") {
			return t, false
		}
		t.key, ok = p.value()
		if !ok || !p.accept("and") || !p.accept("value") || !p.accept("=") {
			return t, false
		}
		t.value, ok = p.value()
		return t, ok && p.accept("}")
	}
	return t, false
}

// tokenize splits a query; a string becomes one token that begins with a quote
// and has lost its escapes.
func tokenize(q string) (tokens []string) {
	for i := 0; i < len(q); {
		switch c := q[i]; {
		case c == ' ':
			i++
		case c == '\'':
			text, end := quoted(q, i+1)
			tokens = append(tokens, "'"+text)
			i = end
		case strings.IndexByte("(){}", c) >= 0:
			tokens = append(tokens, q[i:i+1])
			i++
		case c == '=' || c == '!':
			n := 1
			if c == '!' {
				n = 2
			}
			tokens = append(tokens, q[i:min(i+n, len(q))])
			i += n
		default:
			end := i
			for end < len(q) && strings.IndexByte(" '(){}=!", q[end]) < 0 {
				end++
			}
			tokens = append(tokens, q[i:end])
			i = end
		}
	}
	return tokens
}

// quoted reads a string from behind its quote.
func quoted(q string, i int) (text string, end int) {
	var b strings.Builder
	for ; i < len(q) && q[i] != '\''; i++ {
		if q[i] == '\\' && i+1 < len(q) {
			i++
		}
		b.WriteByte(q[i])
	}
	return b.String(), i + 1
}
