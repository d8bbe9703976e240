package checkpoint_test

import (
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
)

// A disk is a file system that a power cut finds with some of its changes not on
// the medium yet. It promises what POSIX does and no more, as ALICE (Pillai et
// al., "All File Systems Are Not Created Equal", OSDI 2014) words it:
//
//   - fsync of a file makes its content durable, and not its name;
//   - fsync of a folder makes the names in it durable, and not what they lead to;
//   - what is not synced is lost, or kept, each change for itself and in any
//     order; a write may be torn, or leave zeros for what it has not brought;
//   - a change of names is whole or not at all, renames from folder to folder
//     included: journalling file systems do that, ext2 and FAT do not.
//
// That is weaker than ext4, whose names change in order, and than btrfs and XFS.
type disk struct {
	root    *inode
	changes []alteration
}

// An inode is a file or a folder.
type inode struct {
	names map[string]*inode // as the process sees it; nil for a file
	size  int
}

// An alteration is one thing that was done: to the content of a file, to names, or a
// sync, which makes others durable.
type alteration struct {
	file   *inode // of a write, a truncation, a sync
	at     int    // where data goes; of a truncation, the size
	data   []byte // nil: a truncation
	names  []name // all at once
	synced bool
}

// A name leads to an inode, or to nothing any more.
type name struct {
	folder *inode
	name   string
	to     *inode
}

func newDisk() *disk { return &disk{root: &inode{names: map[string]*inode{}}} }

// find returns what a path leads to as the process sees it; nil: nothing.
func (d *disk) find(file string) *inode {
	at := d.root
	if file == "." {
		return at
	}
	for part := range strings.SplitSeq(file, "/") {
		if at == nil || at.names == nil {
			return nil
		}
		at = at.names[part]
	}
	return at
}

// alter notes a change, and shows it to the process.
func (d *disk) alter(c alteration) {
	for _, n := range c.names {
		n.show()
	}
	d.changes = append(d.changes, c)
}

func (n name) show() {
	if n.to == nil {
		delete(n.folder.names, n.name)
	} else {
		n.folder.names[n.name] = n.to
	}
}

// at returns the name for a path.
func (d *disk) at(file string, to *inode) name {
	return name{d.find(path.Dir(file)), path.Base(file), to}
}

func (d *disk) open(file string, truncated bool) {
	if file == "" || file == ackedName {
		return
	}
	if is := d.find(file); is == nil {
		d.alter(alteration{names: []name{d.at(file, &inode{})}})
	} else if truncated && is.size > 0 {
		d.truncate(file, 0)
	}
}

func (d *disk) mkdir(file string) {
	d.alter(alteration{names: []name{d.at(file, &inode{names: map[string]*inode{}})}})
}

func (d *disk) remove(file string) { d.alter(alteration{names: []name{d.at(file, nil)}}) }

func (d *disk) rename(from, to string) {
	d.alter(alteration{names: []name{d.at(from, nil), d.at(to, d.find(from))}})
}

func (d *disk) link(from, to string) { d.alter(alteration{names: []name{d.at(to, d.find(from))}}) }

func (d *disk) size(file string) int { return d.find(file).size }

func (d *disk) write(file string, at int, data []byte) {
	if is := d.find(file); is != nil && len(data) > 0 { // else it is removed, and only open still
		is.size = max(is.size, at+len(data))
		d.alter(alteration{file: is, at: at, data: data})
	}
}

func (d *disk) truncate(file string, size int) {
	if is := d.find(file); is != nil {
		is.size = size
		d.alter(alteration{file: is, at: size})
	}
}

func (d *disk) sync(file string) {
	if is := d.find(file); is != nil {
		d.alter(alteration{file: is, synced: true})
	}
}

// A fate decides what a power cut leaves of what was not synced.
type fate interface {
	// keeps says whether a change of names is kept.
	keeps() bool
	// part returns how many of the n bytes of a write are kept, and whether the
	// file is as long as if all were.
	part(n int) (kept int, long bool)
}

// everything is the fate of what is not cut off at all.
type everything struct{}

func (everything) keeps() bool            { return true }
func (everything) part(n int) (int, bool) { return n, true }

// a plain fate keeps names, content, both or neither.
type plain struct{ names, content bool }

func (p plain) keeps() bool { return p.names }

func (p plain) part(n int) (int, bool) {
	if p.content {
		return n, true
	}
	return 0, false
}

// chance keeps each change with the same likelihood, and tears some writes.
type chance struct{ *rand.Rand }

func (c chance) keeps() bool { return c.IntN(2) == 0 }

func (c chance) part(n int) (int, bool) {
	switch c.IntN(4) {
	case 0:
		return n, true
	case 1:
		return c.IntN(n), c.IntN(2) == 0
	}
	return 0, c.IntN(2) == 0
}

// after returns what a power cut leaves of the first n changes, by path.
func (d *disk) after(n int, f fate) files {
	kept := d.kept(n, f)
	names, content := map[*inode]map[string]*inode{}, map[*inode][]byte{}
	for i, c := range d.changes[:n] {
		for _, n := range c.names {
			if !kept[i] {
				break
			}
			if names[n.folder] == nil {
				names[n.folder] = map[string]*inode{}
			}
			if names[n.folder][n.name] = n.to; n.to == nil {
				delete(names[n.folder], n.name)
			}
		}
		if c.file != nil && !c.synced {
			content[c.file] = c.apply(content[c.file], kept[i], f)
		}
	}
	left := files{}
	var walk func(folder *inode, at string)
	walk = func(folder *inode, at string) {
		for name, is := range names[folder] {
			if is.names == nil {
				left[at+name] = string(content[is])
				continue
			}
			left[at+name+"/"] = ""
			walk(is, at+name+"/")
		}
	}
	walk(d.root, "")
	return left
}

// apply makes a change to the content of a file, all of it or what fate keeps.
func (c alteration) apply(old []byte, all bool, f fate) []byte {
	kept, long := len(c.data), true
	if c.data == nil {
		if all || f.keeps() {
			return slices.Clone(old[:min(c.at, len(old))])
		}
		return old
	}
	if !all {
		kept, long = f.part(len(c.data))
	}
	end := c.at + kept
	if long {
		end = c.at + len(c.data)
	}
	if kept == 0 && !long {
		return old
	}
	is := append(slices.Clone(old), make([]byte, max(end-len(old), 0))...)
	copy(is[c.at:], c.data[:kept])
	return is
}

// kept returns which of the first n changes a power cut leaves for sure, and of
// the changes of names also those that fate keeps.
func (d *disk) kept(n int, f fate) []bool {
	kept := make([]bool, n)
	synced := map[*inode]bool{} // behind the change that is looked at
	moved := map[*inode]bool{}  // folders that something kept has moved later
	for i, c := range slices.Backward(d.changes[:n]) {
		if c.synced {
			synced[c.file] = true
			continue
		}
		kept[i] = synced[c.file]
		if c.names == nil {
			continue
		}
		for _, n := range c.names {
			// A folder has one name: what moved it later presupposes this.
			kept[i] = kept[i] || synced[n.folder] || moved[n.to]
		}
		if kept[i] = kept[i] || f.keeps(); kept[i] {
			for _, n := range c.names {
				if n.to != nil && n.to.names != nil {
					moved[n.to] = true
				}
			}
		}
	}
	return kept
}

// key tells states of a disk apart.
func key(left files, acks int) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(left)) {
		b.WriteString(name + "\x00" + left[name] + "\x01")
	}
	b.WriteByte(byte(acks))
	return b.String()
}
