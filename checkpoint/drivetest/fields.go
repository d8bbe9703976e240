package drivetest

import (
	"maps"
	"strings"
)

func set(words string) map[string]bool {
	s := map[string]bool{}
	for word := range strings.FieldsSeq(words) {
		s[word] = true
	}
	return s
}

// A schema says which fields an object has; those that are objects, or lists of
// them, have a schema of their own.
type schema struct {
	fields map[string]bool
	sub    map[string]schema
}

// fileSchema is a file's. A test compares all of them with Google's description
// of the API. Some are never filled here, so that asking for them is no fault.
func fileSchema() schema {
	return schema{fields: set(`kind id name mimeType description parents properties appProperties createdTime modifiedTime
		trashed explicitlyTrashed version ownedByMe spaces size quotaBytesUsed md5Checksum sha1Checksum sha256Checksum
		headRevisionId originalFilename webViewLink starred shared driveId trashedTime`)}
}

func listSchema() schema {
	return schema{set("kind nextPageToken incompleteSearch files"), map[string]schema{"files": fileSchema()}}
}

func aboutSchema() schema {
	return schema{set("kind user storageQuota maxUploadSize"), map[string]schema{
		"user":         {fields: set("kind displayName emailAddress permissionId me")},
		"storageQuota": {fields: set("limit usage usageInDrive usageInDriveTrash")},
	}}
}

func idsSchema() schema { return schema{fields: set("kind space ids")} }

// mask cuts an object down to what the fields parameter asks for.
func mask(object map[string]any, fields string, known schema) (map[string]any, *apiError) {
	m := &masker{rest: fields}
	out, err := m.object(object, known)
	if err == nil && m.rest != "" {
		return nil, errFields(m.rest)
	}
	return out, err
}

type masker struct{ rest string }

// object applies a list of fields up to its end or a closing bracket.
func (m *masker) object(object map[string]any, known schema) (map[string]any, *apiError) {
	out := map[string]any{}
	for {
		end := strings.IndexAny(m.rest, ",()/")
		if end < 0 {
			end = len(m.rest)
		}
		name := strings.TrimSpace(m.rest[:end])
		m.rest = m.rest[end:]
		if err := m.field(out, object, name, known); err != nil {
			return nil, err
		}
		rest, more := strings.CutPrefix(m.rest, ",")
		if !more {
			return out, nil
		}
		m.rest = rest
	}
}

// field copies one field, or what is wanted of it.
func (m *masker) field(out, object map[string]any, name string, known schema) *apiError {
	if name == "*" {
		maps.Copy(out, object)
		return nil
	}
	sub, isObject := known.sub[name]
	if !known.fields[name] {
		return errFields(name)
	}
	value, there := object[name]
	inner, nested := strings.CutPrefix(m.rest, "(")
	if !nested {
		inner, nested = strings.CutPrefix(m.rest, "/")
		if nested { // a/b is a(b)
			end := strings.IndexAny(inner, ",)")
			if end < 0 {
				end = len(inner)
			}
			inner = inner[:end] + ")" + inner[end:]
		}
	}
	if !nested {
		if there {
			out[name] = value
		}
		return nil
	}
	if !isObject {
		return errFields(name)
	}
	masked, rest, err := maskValue(value, inner, sub)
	if err != nil {
		return err
	}
	var closed bool
	if m.rest, closed = strings.CutPrefix(rest, ")"); !closed {
		return errFields(rest)
	}
	if there {
		out[name] = masked
	}
	return nil
}

// maskValue applies fields to an object or to each of a list.
func maskValue(value any, fields string, known schema) (masked any, rest string, err *apiError) {
	list, isList := value.([]map[string]any)
	if !isList {
		object, _ := value.(map[string]any)
		m := &masker{rest: fields}
		masked, err = m.object(object, known)
		return masked, m.rest, err
	}
	m := &masker{rest: fields}
	if _, err = m.object(nil, known); err != nil { // an empty list wants valid fields too
		return nil, "", err
	}
	out := []map[string]any{}
	for _, object := range list {
		each := &masker{rest: fields}
		one, err := each.object(object, known)
		if err != nil {
			return nil, "", err
		}
		out = append(out, one)
	}
	return out, m.rest, nil
}
