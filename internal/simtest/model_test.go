package simtest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bytespace/batchlog"
)

// worldPaths are the spaces of a program: neighbours, one within the other, and with parts that try to look like other paths.
var worldPaths = [][]any{
	{}, {"a"}, {"a", "x"}, {"a", "x", 1}, {"a\x00"}, {"ab"}, {"b", []byte{0xff}}, {"hot"}, {"t"}, {"t", "x"}, {"t", "x", 1},
	{"h"}, {"hx"}, {"n"}, {"st"}, {"out", 0}, {"out", 1},
}

// worldPlain is how many of them every program writes to. Those behind are for programs with hooks and tasks.
const (
	worldPlain   = 11
	spaceHooked  = 11 // what is put here is mirrored, and counted
	spaceMirror  = 12
	spaceCount   = 13
	spaceStamped = 14 // values here get a suffix
	spaceDerived = 15 // and those behind: tasks alone write there
)

// An op of the model. Spaces are numbers in worldPaths.
type op struct {
	kind  batchlog.OpKind
	space int
	key   string
	high  string // of a range delete, if bounded
	open  bool   // a range delete without an upper bound
	value string
	ref   *batchlog.BlobRef // the value is put as this blob
}

// text is the op in a form that can be compared with what a tail yields, see opText.
func (o op) text() string {
	path := worldTexts()[o.space]
	switch o.kind {
	case batchlog.OpPut:
		return fmt.Sprintf("put %s %q %q", path, o.key, o.value)
	case batchlog.OpDelete:
		return fmt.Sprintf("del %s %q", path, o.key)
	default:
		if o.open {
			return fmt.Sprintf("delRange %s %q -", path, o.key)
		}
		return fmt.Sprintf("delRange %s %q %q", path, o.key, o.high)
	}
}

// opText is an op of a commit as op.text would write it.
func opText(o batchlog.Op) string {
	path := spaceText(o.Space)
	switch o.Kind {
	case batchlog.OpPut:
		return fmt.Sprintf("put %s %q %q", path, string(o.Key), string(o.Value))
	case batchlog.OpDelete:
		return fmt.Sprintf("del %s %q", path, string(o.Key))
	default:
		if o.High == nil {
			return fmt.Sprintf("delRange %s %q -", path, string(o.Key))
		}
		return fmt.Sprintf("delRange %s %q %q", path, string(o.Key), string(o.High))
	}
}

// pathText is a path by its encoded bytes: what differs in them is another space.
func pathText(path []any) string {
	k, err := batchlog.KeyOf(append([]any{}, path...))
	if err != nil {
		panic("path that no key can hold: " + err.Error())
	}
	return fmt.Sprintf("%x", string(k))
}

// worldTexts is the texts of the world's paths.
var worldTexts = sync.OnceValue(func() []string {
	var texts []string
	for _, path := range worldPaths {
		texts = append(texts, pathText(path))
	}
	return texts
})

// spaceTexts is the texts of paths by how they are stored, as they are asked for all the time.
var spaceTexts sync.Map

// spaceText is pathText of a space.
func spaceText(s *batchlog.Space) string {
	if text, ok := spaceTexts.Load(string(s.Stored())); ok {
		return text.(string)
	}
	text := pathText(s.Path())
	spaceTexts.Store(string(s.Stored()), text)
	return text
}

// within says whether the space with number s is that with number t or within it.
func within(s, t int) bool {
	inner, outer := worldPaths[s], worldPaths[t]
	return len(inner) >= len(outer) && pathText(inner[:len(outer)]) == pathText(outer)
}

// A commit of the model.
type commit struct {
	ops    []op
	token  string
	labels map[string]string
	at     time.Time // when it was submitted, by the database's clock
	// chain is what was added to a chain, in order; ops, its net effect, are known when they have been seen in the log.
	chain []chainStep
	// labelled says whether labels may be those of a chain, which are not known exactly; nil: they are labels.
	labelled func(labels map[string]string) bool
	open     bool // what its net effect is is not known
	hooked   bool // ops has what hooks have added
	foreign  bool // it was not submitted by the program itself
}

// texts is the ops that a tail of these spaces shows; nil: of all.
func (c *commit) texts(filter []int) []string {
	var texts []string
	for _, o := range c.ops {
		if filter == nil || slices.ContainsFunc(filter, func(t int) bool { return within(o.space, t) }) {
			texts = append(texts, o.text())
		}
	}
	return texts
}

// matches says whether a tail of these spaces yields c.
func (c *commit) matches(filter []int) bool { return filter == nil || len(c.texts(filter)) > 0 }

// A state is what the store holds: values by the number of the space and the key.
type state map[place]string

type place struct {
	space int
	key   string
}

// apply makes the changes of c.
func (s state) apply(c *commit) {
	for _, o := range c.ops {
		s.op(o)
	}
}

func (s state) op(o op) {
	switch o.kind {
	case batchlog.OpPut:
		s[place{o.space, o.key}] = o.value
	case batchlog.OpDelete:
		delete(s, place{o.space, o.key})
	default:
		maps.DeleteFunc(s, func(p place, _ string) bool {
			return p.space == o.space && p.key >= o.key && (o.open || p.key < o.high)
		})
	}
}

// A pair is a key with its value.
type pair struct{ key, value string }

// scan is the keys of a space in a range, in the order of a scan.
func (s state) scan(space int, r batchlog.Range, reverse bool) []pair {
	var pairs []pair
	for p, v := range s {
		if p.space == space && r.Contains(batchlog.Key(p.key)) {
			pairs = append(pairs, pair{p.key, v})
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		if reverse {
			a, b = b, a
		}
		return strings.Compare(a.key, b.key)
	})
	return pairs
}

// A model is what a database should be: a slice of commits, and the map that they add up to.
type model struct {
	commits []commit // that of id 1 first; all acknowledged, or found after a crash
	times   []int64  // of the commits, in microseconds: as they were seen, or the least that they may be
	known   []bool   // whether a commit's time has been seen
	latest  int64    // that the clock has shown when something was submitted
	now     state
	tokens  map[string]batchlog.ID
	oldest  batchlog.ID // commits before are no longer in the log
	// effects adds to a commit what pre-commit hooks do, which see this state; nil: there are none.
	effects func(now state, c *commit)
	// foreign says whether a commit that was found in the log is one that the program did not submit itself, but its tasks; nil: there are none.
	foreign func(s *seen) bool
	// pending are the commits whose outcome is not known, in the order they were submitted: the log may hold them
	// when it is opened again.
	pending []commit
}

func newModel() *model {
	return &model{now: state{}, tokens: map[string]batchlog.ID{}, oldest: 1}
}

func (m *model) head() batchlog.ID { return batchlog.ID(len(m.commits)) }

// commit adds c as the next commit.
func (m *model) commit(c commit) batchlog.ID {
	m.hooked(&c)
	at := c.at.UnixMicro()
	m.latest = max(m.latest, at)
	if n := len(m.times); n > 0 {
		at = max(at, m.times[n-1]) // the clock may have gone back
	}
	m.commits = append(m.commits, c)
	m.times = append(m.times, at)
	m.known = append(m.known, false)
	m.now.apply(&c)
	if c.token != "" {
		m.tokens[c.token] = m.head()
	}
	return m.head()
}

// hooked adds to c what hooks do, as the next commit.
func (m *model) hooked(c *commit) {
	if m.effects != nil && !c.hooked {
		m.effects(m.now, c)
		c.hooked = true
	}
}

// take adds a commit of somebody else as the next one.
func (m *model) take(s *seen) {
	m.commit(commit{at: time.UnixMicro(s.time), ops: s.list, labels: s.labels, hooked: true, foreign: true})
}

// timeIs takes note of the time that a commit was seen to have, or says why it can't be: it must be the clock's when the commit was
// made, unless that had shown more before, and it never changes.
func (m *model) timeIs(id batchlog.ID, time int64) error {
	i := id - 1
	if time < m.times[i] || time > m.times[i] && (m.known[i] || time > m.latest) {
		return fmt.Errorf("commit %d is of %d, want %d", id, time, m.times[i])
	}
	m.times[i], m.known[i] = time, true
	return nil
}

// fold is the state at id.
func (m *model) fold(id batchlog.ID) state {
	if id == m.head() {
		return maps.Clone(m.now)
	}
	s := state{}
	for i := range m.commits[:id] {
		s.apply(&m.commits[i])
	}
	return s
}

// had says whether a key had that value at any id up to now; ok false stands for no value.
func (m *model) had(p place, value string, ok bool) bool {
	s := state{}
	matches := func() bool {
		v, there := s[p]
		return there == ok && v == value
	}
	if matches() {
		return true
	}
	for i := range m.commits {
		s.apply(&m.commits[i])
		if matches() {
			return true
		}
	}
	return false
}

// resolve takes over what was found in the log behind what is known: commits that were pending, in their order. It
// says why that can't be.
func (m *model) resolve(found []seen) error {
	for _, s := range found {
		ok := false
		if m.foreign != nil && m.foreign(&s) {
			m.take(&s)
			continue
		}
		for len(m.pending) > 0 && !ok {
			c := m.pending[0]
			m.pending = m.pending[1:]
			if c.chain == nil {
				m.hooked(&c)
			}
			if c.chain != nil && m.takeNet(&c, &s) == nil || c.chain == nil && s.same(&c, nil) == nil {
				m.commit(c)
				ok = true
			}
		}
		if !ok {
			return fmt.Errorf("commit %d was never submitted, or not there: %q", s.id, s.ops)
		}
	}
	m.pending = nil
	return nil
}

// randomKey is one of few enough keys that ops meet.
func randomKey(rng *rand.Rand) string {
	letters := []byte{0x00, 'a', 'b', 'c', 0xff}
	k := make([]byte, rng.IntN(4))
	for i := range k {
		k[i] = letters[rng.IntN(len(letters))]
	}
	return string(k)
}

// randomRange is a range of such keys.
func randomRange(rng *rand.Rand) batchlog.Range {
	low, high := randomKey(rng), randomKey(rng)
	if low > high {
		low, high = high, low
	}
	switch rng.IntN(8) {
	case 0:
		return batchlog.Range{Low: batchlog.Key(low)}
	case 1:
		return batchlog.Range{High: batchlog.Key(high)}
	case 2:
		return batchlog.Range{Low: batchlog.Key(high), High: batchlog.Key(low)} // mostly empty
	default:
		return batchlog.Range{Low: batchlog.Key(low), High: batchlog.Key(high)}
	}
}
