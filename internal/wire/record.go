package wire

// A Record is a commit as log and engine hold it. Its bytes are never changed; whoever is handed a record may keep it.
type Record struct {
	ID    ID
	Time  int64  // microseconds since 1970-01-01 UTC; never less than in the record before
	Count int    // number of ops, those of the chain included
	Meta  []byte // token, labels, …
	Ops   []byte // ops, one behind the other
	// Chain is where more ops are, which need not fit into memory and come before those in Ops; nil: there are none.
	Chain *ChainRef
}

// Size is the encoded bytes that the record holds.
func (r *Record) Size() int { return len(r.Meta) + len(r.Ops) }

// Token is the token in the meta of r, or "".
func (r *Record) Token() string {
	if len(r.Meta) == 0 || r.Meta[0] != tagToken {
		return ""
	}
	item, _, ok := cutString(r.Meta[1:])
	if !ok {
		return ""
	}
	return string(item)
}

// HasBlobs reports whether r has ops that put references to blobs.
func (r *Record) HasBlobs() bool {
	// Its item is the last one.
	b := r.Meta
	for len(b) > 0 {
		if b[0] == tagBlobs {
			return true
		}
		_, rest, ok := cutString(b[1:])
		if !ok {
			return false
		}
		b = rest
	}
	return false
}

// EachOp calls visit for each op of r in order, until it returns an error. What it is given stays valid if the record does.
func (r *Record) EachOp(visit func(kind Kind, key, value []byte) error) error {
	inline := r.Count
	if r.Chain != nil {
		if err := r.Chain.EachOp(visit); err != nil {
			return err
		}
		inline -= r.Chain.Count
	}
	return EachOp(r.Ops, inline, visit)
}
