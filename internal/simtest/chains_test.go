package simtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bytespace/batchlog"
)

// The steps of programs that are about chains, copies and blobs.

// A chainStep is what is added to a chain: an op, or a copy.
type chainStep struct {
	op   op
	copy *spaceCopy // nil: it is none

	revert *spaceRevert     // nil: it is none
	back   map[place]change // what is taken back; nil: nothing
}

// A spaceCopy copies or moves keys of one space, or of a subtree, to another.
type spaceCopy struct {
	dst, src   int
	low, high  string
	open       bool // no upper bound
	tree, move bool
	filled     map[int]bool // spaces that had keys when it was added to its chain
}

// treePairs are the pairs of spaces between which subtrees may be copied, and stay among the spaces there are.
var treePairs = [][2][]any{{{"t"}, {"a"}}, {{"a"}, {"t"}}, {{"t", "x"}, {"a", "x"}}, {{"a", "x", 1}, {"t", "x", 1}}, {{"t", "x"}, {"ab"}}}

// spaceOf is the number of the space with that path.
func spaceOf(path []any) int {
	at := slices.Index(worldTexts(), pathText(path))
	if at < 0 {
		panic("space that is not in the world: " + pathText(path))
	}
	return at
}

// modelOp is an op of a commit as the model has it.
func modelOp(o batchlog.Op) op {
	return op{
		kind: o.Kind, space: slices.Index(worldTexts(), spaceText(o.Space)), key: string(o.Key), high: string(o.High), value: string(o.Value),
		open: o.Kind == batchlog.OpDeleteRange && o.High == nil,
	}
}

// String is what is copied, for messages.
func (c spaceCopy) String() string {
	return fmt.Sprintf("%d to %d, %q to %q (open %t), tree %t, move %t", c.src, c.dst, c.low, c.high, c.open, c.tree, c.move)
}

func (c spaceCopy) contains(key string) bool {
	return c.tree || key >= c.low && (c.open || key < c.high)
}

// apply makes of out, which is base with what came before in the chain, what the copy makes of it.
func (c spaceCopy) apply(base, out state) {
	if c.dst == c.src {
		return
	}
	has := func(p place) bool {
		return (p.space == c.src || c.tree && within(p.space, c.src)) && c.contains(p.key)
	}
	filled := base.filled()
	maps.Copy(filled, c.filled) // that they were emptied meanwhile makes no difference to what the chain has put there
	if c.move {
		maps.DeleteFunc(out, func(p place, _ string) bool { return has(p) && (!c.tree || filled[p.space]) })
	}
	for p, v := range base {
		if has(p) {
			rest := worldPaths[p.space][len(worldPaths[c.src]):]
			out[place{spaceOf(append(slices.Clone(worldPaths[c.dst]), rest...)), p.key}] = v
		}
	}
}

// filled are the spaces that have keys.
func (s state) filled() map[int]bool {
	filled := map[int]bool{}
	for p := range s {
		filled[p.space] = true
	}
	return filled
}

// after is the state after a chain.
func after(base state, chain []chainStep) state {
	out := maps.Clone(base)
	for _, s := range chain {
		switch {
		case s.copy != nil:
			s.copy.apply(base, out)
		case s.revert != nil:
			s.revert.apply(out)
		case s.back != nil:
			for p, ch := range s.back {
				if out[p] = ch.old; !ch.had {
					delete(out, p)
				}
			}
		default:
			out.op(s.op)
		}
	}
	return out
}

// takeNet takes what was seen of a chain's commit, the next one, for its ops, or says how that is not what the chain should do.
func (m *model) takeNet(c *commit, s *seen) error {
	if c.labelled == nil && !maps.Equal(s.labels, c.labels) || c.labelled != nil && !c.labelled(s.labels) {
		return fmt.Errorf("chain %d has labels %q, want %q", s.id, s.labels, c.labels)
	}
	c.labels = s.labels
	want, got := after(m.now, c.chain), maps.Clone(m.now)
	if c.open {
		want = maps.Clone(m.now)
		for _, o := range s.list {
			want.op(o)
		}
	}
	if m.effects != nil {
		chainEffects(m.now, want, s, c.open)
		c.hooked = true
	}
	for _, o := range s.list {
		if o.space < 0 {
			return fmt.Errorf("chain %d has an op in a space that it does not touch", s.id)
		}
		got.op(o)
	}
	if !maps.Equal(got, want) {
		for p, v := range want {
			if g, ok := got[p]; !ok || g != v {
				return fmt.Errorf("chain %d: %v is %.60q, %t, want %.60q", s.id, p, g, ok, v)
			}
		}
		for p, v := range got {
			if _, ok := want[p]; !ok {
				return fmt.Errorf("chain %d: %v is %.60q, want nothing", s.id, p, v)
			}
		}
	}
	c.ops = s.list
	return nil
}

// seeNet is takeNet for a chain that was acknowledged.
func (r *run) seeNet(c *commit, id batchlog.ID) {
	r.t.Helper()
	armed := r.disk.disarm()
	defer r.disk.arm(armed)
	ctx, cancel := bounded(patience)
	defer cancel()
	list, err := tailAll(ctx, r.db.DB, batchlog.TailOptions{From: batchlog.At(id), Until: id})
	r.must("tail of a chain", err)
	if len(list) != 1 {
		r.t.Fatalf("step %d: tail of commit %d yields %d", r.step, id, len(list))
	}
	r.must("chain", r.model.takeNet(c, &list[0]))
}

// An openChain is a chain that is being filled.
type openChain struct {
	chain  *batchlog.Chain
	cancel context.CancelCauseFunc // of its context
	commit
	blobs bool   // it may refer to blobs
	err   error  // of its last commit that failed
	had   string // the error that it had when it was last filled, and keeps
	lost  bool   // a copy or a revert could not be added: it can't be committed any more
	// noInverse says that a revert could not be added for want of an inverse.
	noInverse bool
}

// beginChain begins a chain, or returns nil if there is a reason that it can't.
func (r *run) beginChain() *openChain {
	r.t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	c, err := r.db.Chain(ctx)
	if err != nil && r.excused(err) {
		cancel(nil)
		return nil
	}
	r.must("chain", err)
	r.written++
	o := &openChain{chain: c, cancel: cancel}
	o.labels = map[string]string{"chain": fmt.Sprint(r.written)}
	o.chain.Labels = maps.Clone(o.labels)
	o.commit.chain = []chainStep{}
	return o
}

func (r *run) stepChain() {
	r.t.Helper()
	o := r.beginChain()
	if o == nil {
		return
	}
	if r.rng.IntN(3) == 0 {
		o.token = fmt.Sprintf("chain %d", r.written)
		o.chain.Token = o.token
	}
	r.chains = append(r.chains, o)
	r.fillChain(o)
}

func (r *run) stepFillChain() { r.fillChain(r.chains[r.rng.IntN(len(r.chains))]) }

// fillChain adds some ops, or many, and sometimes a copy.
func (r *run) fillChain(o *openChain) {
	r.t.Helper()
	n := []int{1, 10, 60, 300}[r.rng.IntN(4)]
	for range n {
		op := r.randomOp()
		if r.rng.IntN(40) == 0 {
			r.randomBlob(&op)
			o.blobs = o.blobs || op.ref != nil
		}
		r.add(o.chain, op)
		o.commit.chain = append(o.commit.chain, chainStep{op: op})
	}
	if r.rng.IntN(3) == 0 {
		c := r.randomCopy()
		err := r.addCopy(o, &c)
		o.lost = o.lost || err != nil
		r.log("chain: copy %s: %v", c, err)
		o.commit.chain = append(o.commit.chain, chainStep{copy: &c})
		o.blobs = true // or may have
	}
	r.log("chain of %d steps: %d more, %v", len(o.commit.chain), n, o.chain.Err())
	defer func() { o.had = fmt.Sprint(o.chain.Err()) }()
	if err := o.chain.Err(); err != nil && err.Error() != o.had && !r.excusedChain(err) && !(o.noInverse && errors.Is(err, batchlog.ErrNoInverse)) {
		r.must("fill a chain", err)
	}
}

// excusedChain says whether a chain may have failed with err: as a read, or because the disk is or was full.
func (r *run) excusedChain(err error) bool {
	full := r.disk.isFull() || time.Since(r.spaceSince) < time.Second || time.Since(r.disk.spaceSince()) < time.Second
	return r.excused(err) || (r.disk.crashed() || r.disk.faults() > 0) && !errors.Is(err, errHung) || full && (errors.Is(err, batchlog.ErrNoSpace) || errors.Is(err, errHung))
}

func (r *run) randomCopy() spaceCopy {
	c := spaceCopy{move: r.rng.IntN(2) == 0, tree: r.rng.IntN(2) == 0, open: true}
	if c.tree {
		pair := treePairs[r.rng.IntN(len(treePairs))]
		c.dst, c.src = spaceOf(pair[0]), spaceOf(pair[1])
		return c
	}
	c.dst, c.src = r.writable(), r.writable()
	if r.rng.IntN(2) == 0 {
		rg := randomRange(r.rng)
		c.low, c.high, c.open = string(rg.Low), string(rg.High), rg.High == nil
	}
	return c
}

// addCopy adds a copy, which waits for the store, also when that waits for space: then the chain is given up.
func (r *run) addCopy(o *openChain, c *spaceCopy) error {
	c.filled = r.model.now.filled()
	ctx, cancel := r.context()
	defer cancel()
	defer context.AfterFunc(ctx, func() { o.cancel(context.Cause(ctx)) })()
	chain := o.chain
	dst, src := r.spaces[c.dst], r.spaces[c.src]
	rg := batchlog.Range{Low: batchlog.Key(c.low), High: batchlog.Key(c.high)}
	if c.open {
		rg.High = nil
	}
	switch {
	case c.tree && c.move:
		return chain.MoveTree(dst, src)
	case c.tree:
		return chain.CopyTree(dst, src)
	case c.move:
		return chain.MoveRange(dst, src, rg)
	default:
		return chain.CopyRange(dst, src, rg)
	}
}

// stepCopy copies, as a commit of its own.
func (r *run) stepCopy() {
	r.t.Helper()
	r.stepChainOf(func(o *openChain) {
		c := r.randomCopy()
		err := r.addCopy(o, &c)
		o.lost = o.lost || err != nil
		r.log("copy %s: %v", c, err)
		o.commit.chain = append(o.commit.chain, chainStep{copy: &c})
	})
}

// stepChainOf commits a chain that fill fills.
func (r *run) stepChainOf(fill func(o *openChain)) {
	r.t.Helper()
	o := r.beginChain()
	if o == nil {
		return
	}
	fill(o)
	o.had = fmt.Sprint(o.chain.Err())
	r.chains = append(r.chains, o)
	r.commitChain(len(r.chains) - 1)
}

func (r *run) stepCommitChain() { r.commitChain(r.rng.IntN(len(r.chains))) }

// commitChain commits a chain, sometimes with other commits made under way. One that has failed for a reason that passes may be tried again.
func (r *run) commitChain(i int) {
	r.t.Helper()
	o := r.chains[i]
	r.busyChain(o)
	ctx, cancel := r.context()
	defer cancel()
	failed := o.chain.Err()
	o.at = r.clock.now()
	id, err := o.chain.Commit(ctx)
	o.chain.Progress = nil
	if err == nil || errors.Is(err, batchlog.ErrUncertain) {
		r.chains = slices.Delete(r.chains, i, i+1)
		r.settle(o.commit, id, err)
		_ = o.chain.Close()
		return
	}
	r.log("commit of a chain of %d steps: commit %d, %v; before %v", len(o.commit.chain), id, err, failed)
	r.met["chain "+errClass(err)]++
	if id != 0 {
		r.t.Fatalf("step %d: commit %d with the error %v", r.step, id, err)
	}
	if !r.excusedChain(err) && (failed == nil || !errors.Is(err, failed) && failed.Error() != o.had) && !(o.failed() && errors.Is(err, o.err)) &&
		!(o.noInverse && errors.Is(err, batchlog.ErrNoInverse)) {
		r.must("commit of a chain", err)
	}
	o.err = err
	if r.fullPatience == 0 && r.rng.IntN(2) == 0 {
		r.chains = slices.Delete(r.chains, i, i+1)
		err := o.chain.Close()
		if err != nil && !r.excusedChain(err) {
			r.must("close a chain", err)
		}
	}
}

// busyChain has commits made under way, sometimes.
func (r *run) busyChain(o *openChain) {
	r.t.Helper()
	if o.chain.Progress == nil && r.rng.IntN(2) == 0 {
		busy := 1 + r.rng.IntN(3)
		o.chain.Progress = func(p batchlog.ChainProgress) {
			// Nobody else commits while a copy catches up for the last time.
			if p.Stage == "catch up" || busy == 0 || r.disk.isFull() || r.disk.crashed() || r.disk.faults() > 0 {
				return
			}
			busy--
			r.met["written during "+p.Stage]++
			r.submit(r.randomCommit())
		}
	}
}

func (r *run) stepCloseChain() {
	r.t.Helper()
	i := r.rng.IntN(len(r.chains))
	o := r.chains[i]
	r.chains = slices.Delete(r.chains, i, i+1)
	r.log("close a chain of %d steps", len(o.commit.chain))
	if err := o.chain.Close(); err != nil && !r.excusedChain(err) {
		r.must("close a chain", err)
	}
}

// randomContent is the content of a blob, often one that there was before.
func (r *run) randomContent() string {
	if len(r.blobs) > 0 && r.rng.IntN(3) == 0 {
		return r.blobs[r.rng.IntN(len(r.blobs))]
	}
	return r.value() + strings.Repeat("b", []int{0, 100, 5000, 70_000}[r.rng.IntN(4)])
}

// randomBlob makes the value of a put a blob, if that can be stored.
func (r *run) randomBlob(o *op) {
	r.t.Helper()
	if o.kind != batchlog.OpPut {
		return
	}
	value := r.randomContent()
	ctx, cancel := r.context()
	defer cancel()
	ref, err := r.db.StoreBlob(ctx, strings.NewReader(value))
	r.log("blob of %d bytes: %v", len(value), err)
	if err != nil {
		if !r.excusedChain(err) {
			r.must("store a blob", err)
		}
		r.met["blob "+errClass(err)]++
		return
	}
	r.blobs = append(r.blobs, value)
	o.value, o.ref = value, &ref
}

// stepBlob puts a blob, beside other ops, in a batch.
func (r *run) stepBlob() {
	r.t.Helper()
	c := commit{at: r.clock.now()}
	for range 1 + r.rng.IntN(3) {
		o := r.randomOp()
		r.randomBlob(&o)
		c.ops = append(c.ops, o)
	}
	r.submit(c)
}

// stepStrayBlob stores a blob that nothing will refer to.
func (r *run) stepStrayBlob() {
	o := op{kind: batchlog.OpPut}
	r.randomBlob(&o)
}

// stepReadBlob reads the value of a key as a blob, in parts.
func (r *run) stepReadBlob() {
	r.t.Helper()
	if len(r.model.now) == 0 {
		return
	}
	places := slices.SortedFunc(maps.Keys(r.model.now), func(a, b place) int {
		if a.space != b.space {
			return a.space - b.space
		}
		return strings.Compare(a.key, b.key)
	})
	places = slices.DeleteFunc(places, func(p place) bool { return p.space >= spaceDerived })
	if len(places) == 0 {
		return
	}
	p := places[r.rng.IntN(len(places))]
	want := r.model.now[p]
	ctx, cancel := r.context()
	defer cancel()
	b, err := r.spaces[p.space].Blob(ctx, batchlog.Key(p.key))
	if r.readErr("open a blob", err) {
		return
	}
	r.must("open a blob", err)
	defer b.Close()
	skip := r.rng.IntN(len(want) + 1)
	_, err = b.Seek(int64(skip), io.SeekStart)
	r.must("seek", err)
	got, err := io.ReadAll(b)
	if r.readErr("read a blob", err) {
		return
	}
	if string(got) != want[skip:] || b.Size() != int64(len(want)) {
		r.t.Fatalf("step %d: %v from %d on is %.60q, %d bytes; want %.60q, %d", r.step, p, skip, got, b.Size(), want[skip:], len(want))
	}
}

// stepSweep removes what nothing needs, and looks that it is gone, and that nothing else is.
func (r *run) stepSweep() {
	r.t.Helper()
	ctx, cancel := r.context()
	defer cancel()
	if r.fullPatience == 0 && r.rng.IntN(2) == 0 {
		r.letGo()
	}
	// The store must have come to head for it to know what is referred to.
	v, err := r.db.View(ctx)
	if r.readErr("view before a sweep", err) {
		return
	}
	r.must("view before a sweep", errors.Join(err, v.Close()))
	n, _, err := r.db.SweepChains(ctx, 0)
	r.log("sweep of chains: %d, %v", n, err)
	if err != nil {
		if !r.excusedChain(err) {
			r.must("sweep of chains", err)
		}
		return
	}
	age := time.Duration(0)
	for _, o := range r.chains {
		if o.blobs { // what a chain has collected the database does not know before it is staged
			age = time.Hour
		}
	}
	swept, err := r.db.SweepBlobs(ctx, age)
	r.log("sweep of blobs: %+v, %v", swept, err)
	if err != nil {
		if !r.excusedChain(err) {
			r.must("sweep of blobs", err)
		}
		return
	}
	r.met["blobs swept"] += int(swept.Removed)
	r.met["chains swept"] += n
	if r.disk.crashed() || r.disk.faults() > 0 {
		return
	}
	r.checkSwept()
}

// checkSwept asserts that after a sweep there is nothing that nobody needs.
func (r *run) checkSwept() {
	r.t.Helper()
	armed := r.disk.disarm()
	defer r.disk.arm(armed)
	open := len(r.chains)
	list, err := r.db.Chains(context.Background())
	r.must("chains", err)
	if len(list) != open {
		r.t.Fatalf("step %d: %d chains are listed after a sweep, %d are open: %+v", r.step, len(list), open, list)
	}
	names, err := r.disk.List("data/db/chains")
	if err != nil && !strings.Contains(err.Error(), "not exist") {
		r.must("list", err)
	}
	if len(names) > open {
		r.t.Fatalf("step %d: %d directories of chains after a sweep, %d chains are open", r.step, len(names), open)
	}
	for _, o := range r.chains {
		if o.blobs {
			return // blobs stay while a chain may refer to them
		}
	}
	if len(r.views) > 0 || r.limbo {
		return
	}
	needed := map[string]bool{}
	need := func(value string) {
		sum := sha256.Sum256([]byte(value))
		needed[hex.EncodeToString(sum[:])] = true
	}
	for _, v := range r.model.now {
		need(v)
	}
	s := state{}
	for i := range r.model.commits {
		id := batchlog.ID(i + 1)
		for _, ch := range s.changes(&r.model.commits[i]) {
			if ch.had && covers(r.kept.have, id, id) {
				need(ch.old)
			}
		}
		if id >= r.model.oldest {
			for _, o := range r.model.commits[i].ops {
				need(o.value)
			}
		}
	}
	folders, err := r.disk.List("data/db/blobs")
	r.must("list", err)
	for _, folder := range folders {
		names, err := r.disk.List("data/db/blobs/" + folder)
		if len(folder) != 2 {
			r.t.Fatalf("step %d: %s among the blobs after a sweep", r.step, folder)
		}
		r.must("list", err)
		for _, name := range names {
			if hash, isBlob := strings.CutSuffix(name, ".blob"); !isBlob || !needed[hash] && !(r.wide && strings.Contains(r.whoHad(hash), `"{\"`)) { // what tasks say of windows that fail is theirs
				r.t.Fatalf("step %d: %s/%s is there after a sweep, and nothing refers to it; %s", r.step, folder, name, r.whoHad(hash))
			}
		}
	}
	r.met["sweep checked"]++
}

// whoHad says where a blob came from.
func (r *run) whoHad(hash string) string {
	for i := range r.model.commits {
		for _, o := range r.model.commits[i].ops {
			if sum := sha256.Sum256([]byte(o.value)); hex.EncodeToString(sum[:]) == hash {
				return fmt.Sprintf("commit %d put it at %v", i+1, place{o.space, o.key})
			}
		}
	}
	for _, content := range r.blobs {
		if sum := sha256.Sum256([]byte(content)); hex.EncodeToString(sum[:]) == hash {
			return fmt.Sprintf("it was stored: %.20q", content)
		}
	}
	f, err := r.disk.mem.Open("data/db/blobs/" + hash[:2] + "/" + hash + ".blob")
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	b := make([]byte, 120)
	n, err := f.Read(b)
	return fmt.Sprintf("nobody stored it: %q, %v", b[:n], err)
}

func (o *openChain) failed() bool { return o.err != nil }
