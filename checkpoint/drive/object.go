package drive

import (
	"cmp"
	"slices"
	"strconv"

	driveapi "google.golang.org/api/drive/v3"

	"outlast/checkpoint/durable"
)

// What marks an object as made by Outlast. Drive shows appProperties to the
// program that set them only, and properties to every program of the same user:
// a run that Colab's sign-in wrote is read at home under another one.
const (
	markKey    = "outlast"
	markFile   = "1"
	markTidied = "tidied" // of a folder that was left empty
	seqKey     = "seq"
	nextKey    = "next"
	sumKey     = "sha256"
)

const folderType = "application/vnd.google-apps.folder"

// fileFields is what we want to know of every object.
const fileFields = "id,name,mimeType,parents,size,sha256Checksum,appProperties,properties,createdTime,trashed"

// An object is one version of one file in Drive.
type object struct {
	ID      string `json:"id"`
	Next    string `json:"next,omitempty"`    // id that the next version will have
	Seq     int64  `json:"seq"`               // of the version, among those of one name
	Size    int64  `json:"size"`              // bytes
	SHA256  string `json:"sha256,omitempty"`  // of what Drive has
	Meant   string `json:"meant,omitempty"`   // SHA-256 of what it was sent; empty: not known beforehand
	Created string `json:"created,omitempty"` // RFC 3339, by Drive's clock
}

// digest says what the object holds.
func (o object) digest() durable.Digest { return durable.Digest{Size: o.Size, SHA256: o.SHA256} }

// holds reports whether Drive has confirmed that the object is want, whole.
func (o object) holds(want durable.Digest) bool {
	return o.SHA256 != "" && o.SHA256 == want.SHA256 && o.Size == want.Size
}

// sound reports whether Drive has what it was sent. What it has not is there
// for a moment, until its maker has noticed, and counts as absent.
func (o object) sound() bool { return o.Meant == "" || o.SHA256 == "" || o.Meant == o.SHA256 }

// properties are the marks of an object to be made.
func (o object) properties() map[string]string {
	marks := map[string]string{markKey: markFile, seqKey: strconv.FormatInt(o.Seq, 10), nextKey: o.Next}
	if o.Meant != "" {
		marks[sumKey] = o.Meant
	}
	return marks
}

// ours reports whether Outlast has made f.
func ours(f *driveapi.File) bool {
	return f.AppProperties[markKey] == markFile || f.Properties[markKey] == markFile
}

// objectOf reads what Drive says of a file.
func objectOf(f *driveapi.File) object {
	marks := f.AppProperties
	if marks[markKey] == "" {
		marks = f.Properties
	}
	seq, _ := strconv.ParseInt(marks[seqKey], 10, 64) // one that is none counts as the oldest
	return object{ID: f.Id, Next: marks[nextKey], Seq: seq, Size: f.Size, SHA256: f.Sha256Checksum, Meant: marks[sumKey], Created: f.CreatedTime}
}

// newestFirst puts the versions of one name in order, those that are not sound
// last. Two machines that made the first version at the same time have the same
// number; Drive's clock decides.
func newestFirst(objects []object) {
	unsound := func(o object) int {
		if o.sound() {
			return 0
		}
		return 1
	}
	slices.SortFunc(objects, func(a, b object) int {
		return cmp.Or(cmp.Compare(unsound(a), unsound(b)),
			cmp.Compare(b.Seq, a.Seq), cmp.Compare(b.Created, a.Created), cmp.Compare(b.ID, a.ID))
	})
}

// latest returns the version with the highest number, sound or not; none has 0.
func latest(versions []object) (last object) {
	for _, o := range versions {
		if o.Seq > last.Seq {
			last = o
		}
	}
	return last
}
