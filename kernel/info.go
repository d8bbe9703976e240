package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"outlast/kernel/jupyter"
)

// infoState is what the child says of itself. It is answered here, so that a
// kernel whose child works, boots or has died is still there for its server. A
// child of the same kind as an earlier one is known before it has booted.
type infoState struct {
	mu       sync.Mutex
	known    childInfo
	answered bool   // one has answered, as known says
	file     string // where it is remembered; empty: nowhere
	waiting  []*route
}

// childInfo is what is remembered of one kind of child.
type childInfo struct {
	Content json.RawMessage `json:"content"` // of its kernel_info_reply
	Greets  bool            `json:"greets"`  // it sends iopub_welcome
	TCP     bool            `json:"tcp"`     // it knows no local sockets
}

// answerInfo answers a kernel_info_request, at once if the answer is known.
func (p *Proxy) answerInfo(r *route) {
	p.publishStatus(jupyter.Busy, r.request)
	if content := p.info.get(r); content != nil {
		p.tellInfo(r, content)
	}
}

func (p *Proxy) tellInfo(r *route, content any) {
	p.reply(r, content, nil)
	p.publishStatus(jupyter.Idle, r.request)
}

// get returns the content of the answer, or nil after noting that r waits.
func (s *infoState) get(r *route) json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known.Content == nil {
		s.waiting = append(s.waiting, r)
	}
	return s.known.Content
}

func (s *infoState) greets() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known.Greets
}

// wantsTCP reports whether the child with this number is to listen on TCP. Some
// kernels know nothing else: those that do not answer on local sockets are
// tried with both in turn.
func (s *infoState) wantsTCP(number int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if runtime.GOOS == "windows" {
		return true
	}
	if s.answered {
		return s.known.TCP
	}
	often := 2
	if s.known.Content != nil { // it has answered before, and fails for another reason
		often = 4
	}
	return s.known.TCP != (number%often == 0)
}

// setTCP notes what a child has answered on.
func (s *infoState) setTCP(c Config, tcp bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered = true
	if s.known.TCP != tcp {
		s.known.TCP = tcp
		s.remember(c)
	}
}

// setGreets notes that the child greets subscribers; it reports whether that is
// news.
func (s *infoState) setGreets(c Config) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known.Greets {
		return false
	}
	s.known.Greets = true
	s.remember(c)
	return true
}

// learn takes the child's own answer. releaseInfo gives it to those who wait.
func (s *infoState) learn(c Config, m *jupyter.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if string(m.Content) != string(s.known.Content) {
		s.known.Content = m.Content
		s.remember(c)
	}
}

// language returns the child's language, and its implementation.
func (s *infoState) language() (language, implementation string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var content struct {
		Implementation string `json:"implementation"`
		Language       struct {
			Name string `json:"name"`
		} `json:"language_info"`
	}
	if json.Unmarshal(s.known.Content, &content) != nil {
		return "", ""
	}
	return content.Language.Name, content.Implementation
}

// releaseInfo answers those who have waited.
func (p *Proxy) releaseInfo() {
	p.info.mu.Lock()
	waiting, content := p.info.waiting, p.info.known.Content
	p.info.waiting = nil
	p.info.mu.Unlock()
	for _, r := range waiting {
		p.tellInfo(r, content)
	}
}

// giveUp answers those who wait for a child that does not start: so that the
// front end comes up, and shows the error of the first cell.
func (s *infoState) giveUp(p *Proxy) {
	s.mu.Lock()
	if s.known.Content == nil {
		s.known.Content = json.RawMessage(fmt.Sprintf(`{"status":"ok","protocol_version":%q,"implementation":"outlast","implementation_version":"",`+
			`"language_info":{"name":"python","version":"3","mimetype":"text/x-python","file_extension":".py"},`+
			`"banner":"The Python kernel does not start.","help_links":[]}`, jupyter.ProtocolVersion))
	}
	s.mu.Unlock()
	p.releaseInfo()
}

// recall reads what is remembered of children of this kind.
func (s *infoState) recall(c Config) {
	if c.CacheDir == "" {
		return
	}
	s.file = filepath.Join(c.CacheDir, "kernel-info-"+kindOf(c)+".json")
	data, err := os.ReadFile(s.file)
	if err != nil {
		return // the first of its kind
	}
	var known childInfo
	if json.Unmarshal(data, &known) == nil && isInfo(known.Content) {
		s.known = known
	}
}

// isInfo reports whether content answers a kernel_info_request.
func isInfo(content json.RawMessage) bool {
	var info struct {
		Status   jupyter.Outcome `json:"status"`
		Version  string          `json:"protocol_version"`
		Language struct {
			Name string `json:"name"`
		} `json:"language_info"`
	}
	return json.Unmarshal(content, &info) == nil && info.Status != jupyter.Failed && info.Version != "" && info.Language.Name != ""
}

// remember writes what is known. It only costs time if it is lost.
func (s *infoState) remember(c Config) {
	if s.file == "" || s.known.Content == nil {
		return
	}
	data, err := json.Marshal(s.known)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(s.file), 0o700)
	}
	temp := fmt.Sprintf("%s.%d", s.file, os.Getpid())
	if err == nil {
		err = os.WriteFile(temp, data, 0o600)
	}
	if err == nil {
		err = os.Rename(temp, s.file)
	}
	if err != nil {
		c.Log.Debug("kernel info not remembered", "error", err)
	}
}

// kindOf names the kind of child that c starts: its command, and the age of the
// packages that it may load. An update of any of them makes it another kind.
func kindOf(c Config) string {
	h := sha256.New()
	fmt.Fprintln(h, c.Spec.Argv, c.Spec.Env)
	exe := c.Spec.Argv[0]
	paths := []string{exe}
	prefix := filepath.Dir(filepath.Dir(exe))
	for _, pattern := range []string{"lib/python3*/site-packages", "Lib/site-packages", "pyvenv.cfg"} {
		found, err := filepath.Glob(filepath.Join(prefix, pattern))
		if err == nil {
			paths = append(paths, found...)
		}
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintln(h, path, info.ModTime().UnixNano(), info.Size())
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
