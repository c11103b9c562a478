package commit

import (
	"context"
	"sync"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// tokens makes sure that of all proposals with one token one is committed. A token is in the table from the moment that somebody
// proposes it until its commit is applied; from then on the store knows it. So whoever finds it in neither may propose.
type tokens struct {
	mu    sync.Mutex
	under map[string]*tokenEntry
}

type tokenEntry struct {
	done chan struct{} // closed when id and err are set
	id   batchlog.ID
	err  error
}

// commitOnce commits a proposal with a token, or returns the id of the commit that has it.
func (p *Pipeline) commitOnce(ctx context.Context, prop *waist.Proposal) (batchlog.ID, error) {
	for {
		e, mine := p.tokens.enter(prop.Token)
		if mine {
			p.resolve(ctx, e, prop)
			return e.id, e.err
		}
		p.letBy(prop.Ticket)
		select {
		case <-e.done:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-p.done:
			return 0, batchlog.ErrClosed
		}
		if e.err == nil {
			return e.id, nil
		}
		// That one failed; this one tries for itself.
	}
}

// letBy ends the protection of who waits for another proposal with its token: that one may be held for it.
func (p *Pipeline) letBy(ticket uint64) {
	if ticket != 0 {
		p.end(ticket)
	}
}

// Known returns the commit with that token, if there is one or one is under way that succeeds. ticket is that of who asks, or 0.
func (p *Pipeline) Known(ctx context.Context, token string, ticket uint64) (id batchlog.ID, found bool, err error) {
	p.tokens.mu.Lock()
	e := p.tokens.under[token]
	p.tokens.mu.Unlock()
	if e == nil {
		return p.store.Token(token)
	}
	p.letBy(ticket)
	select {
	case <-e.done:
		return e.id, e.err == nil, nil
	case <-ctx.Done():
		return 0, false, context.Cause(ctx)
	case <-p.done:
		return 0, false, batchlog.ErrClosed
	}
}

// enter returns the entry of token, and whether it was made by this call.
func (t *tokens) enter(token string) (e *tokenEntry, mine bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e, ok := t.under[token]; ok {
		return e, false
	}
	e = &tokenEntry{done: make(chan struct{})}
	t.under[token] = e
	return e, true
}

// resolve finds out the id for an entry of one's own: from the store, or by a commit.
func (p *Pipeline) resolve(ctx context.Context, e *tokenEntry, prop *waist.Proposal) {
	committed := false
	defer func() {
		if !committed {
			p.tokens.leave(prop.Token, e)
		}
		close(e.done)
	}()
	id, found, err := p.store.Token(prop.Token)
	if err != nil || found {
		e.id, e.err = id, err
		return
	}
	e.id, e.err = p.submit(ctx, prop)
	committed = e.err == nil
}

func (t *tokens) leave(token string, e *tokenEntry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.under[token] == e {
		delete(t.under, token)
	}
}

// applied takes the tokens of records, which the store knows now, out of the table.
func (t *tokens) applied(records []wire.Record) {
	for i := range records {
		if len(records[i].Meta) == 0 {
			continue
		}
		if token := records[i].Token(); token != "" {
			t.mu.Lock()
			delete(t.under, token)
			t.mu.Unlock()
		}
	}
}
