package opjson

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/bytespace/batchlog"
)

// A Parser makes batches of lines. It remembers the spaces that it met, as lines mostly have the same few. It is not safe for
// concurrent use.
type Parser struct {
	db     *batchlog.DB
	spaces map[string]*batchlog.Space
}

// parserSpaces bounds Parser.spaces; beyond, it starts anew. Longer texts than parserSpaceBytes are not remembered.
const (
	parserSpaces     = 4096
	parserSpaceBytes = 512
)

// NewParser returns a parser for batches of db.
func NewParser(db *batchlog.DB) *Parser { return &Parser{db: db} }

// A Writer is what ops are added to: a [batchlog.Batch], or a [batchlog.Tx]. It keeps nothing of what it is given.
type Writer interface {
	Put(s *batchlog.Space, k batchlog.Key, value []byte)
	PutRef(s *batchlog.Space, k batchlog.Key, ref batchlog.BlobRef)
	Delete(s *batchlog.Space, k batchlog.Key)
	DeleteRange(s *batchlog.Space, r batchlog.Range)
}

// Batch makes b the batch that line says. If there is an error b is part of it.
func (p *Parser) Batch(line []byte, b *batchlog.Batch) error {
	b.Reset()
	if err := Check(line); err != nil {
		return err
	}
	found := false
	err := EachMember(skipSpace(line), func(name string, value []byte) error {
		switch name {
		case "ops":
			found = true
			return p.Ops(value, b)
		case "token":
			token, err := String(value)
			if err == nil && len(token) > batchlog.MaxTokenBytes {
				err = &batchlog.LimitError{What: "token", Size: int64(len(token)), Limit: batchlog.MaxTokenBytes}
			}
			b.Token = string(token)
			return Within(name, err)
		case "labels":
			var err error
			b.Labels, err = labels(value)
			return Within(name, err)
		}
		return Unknown(name)
	})
	if err != nil {
		return err
	}
	return Missing(found, "ops")
}

// labels is the labels of a batch. More than a batch may have are refused as soon as they are met.
func labels(text []byte) (map[string]string, error) {
	all := map[string]string{}
	size := 0
	return all, EachMember(text, func(label string, value []byte) error {
		text, err := String(value)
		if err != nil {
			return Within(label, err)
		}
		if size += len(label) + len(text); size > batchlog.MaxMetaBytes {
			return &batchlog.LimitError{What: "labels", Size: int64(size), Limit: batchlog.MaxMetaBytes, Hint: "keep large texts in values"}
		}
		all[label] = string(text)
		return nil
	})
}

// Ops adds to w the ops of a JSON array. If there is an error, those before the wrong one were added.
func (p *Parser) Ops(text []byte, w Writer) error {
	return EachItem(text, func(i int, op []byte) error {
		if err := p.op(op, w); err != nil {
			return fmt.Errorf("op %d: %w", i+1, err)
		}
		return nil
	})
}

// op adds one op to w.
func (p *Parser) op(text []byte, w Writer) error {
	count := 0
	err := EachMember(text, func(name string, value []byte) error {
		count++
		if count > 1 {
			return fmt.Errorf("%s is a second op in one object; give each its own", quoted(name))
		}
		kind, ok := map[string]batchlog.OpKind{"put": batchlog.OpPut, "del": batchlog.OpDelete, "delRange": batchlog.OpDeleteRange}[name]
		if !ok {
			return Unknown(name)
		}
		return Within(name, p.opOf(kind, value, w))
	})
	if err == nil && count == 0 {
		return errors.New("an empty object; write put, del or delRange")
	}
	return err
}

func (p *Parser) opOf(kind batchlog.OpKind, text []byte, w Writer) error {
	var (
		s              *batchlog.Space
		key, low, high batchlog.Key
		value          []byte
		ref            *batchlog.BlobRef
	)
	err := EachMember(text, func(name string, text []byte) (err error) {
		single := kind != batchlog.OpDeleteRange
		switch {
		case name == "space":
			s, err = p.Space(text)
		case name == "key" && single:
			err = key.UnmarshalJSON(text)
		case name == "value" && kind == batchlog.OpPut:
			value, err = Value(text)
		case name == "blob" && kind == batchlog.OpPut:
			ref, err = blob(text)
		case name == "low" && !single:
			err = low.UnmarshalJSON(text)
		case name == "high" && !single:
			err = high.UnmarshalJSON(text)
		default:
			return Unknown(name)
		}
		return Within(name, err)
	})
	if err == nil {
		err = Missing(s != nil, "space")
	}
	if err == nil && kind != batchlog.OpDeleteRange {
		err = Missing(key != nil, "key")
	}
	if err == nil && kind == batchlog.OpPut {
		err = Missing(value != nil || ref != nil, "value")
	}
	if err == nil && value != nil && ref != nil {
		err = errors.New("value and blob exclude each other")
	}
	if err != nil {
		return err
	}
	switch kind {
	case batchlog.OpPut:
		if ref != nil {
			w.PutRef(s, key, *ref)
			break
		}
		w.Put(s, key, value)
	case batchlog.OpDelete:
		w.Delete(s, key)
	case batchlog.OpDeleteRange:
		w.DeleteRange(s, batchlog.Between(low, high))
	}
	return nil
}

// Space is the space that a SPACE stands for.
func (p *Parser) Space(text []byte) (*batchlog.Space, error) {
	if s := p.spaces[string(text)]; s != nil {
		return s, nil
	}
	name := text
	if text[0] != '[' {
		var err error
		if name, err = String(text); err != nil {
			return nil, err
		}
	}
	path, err := ParsePath(string(name))
	if err != nil {
		return nil, err
	}
	s := p.db.Space(path...)
	if err := p.db.Inside().Owns(s); err != nil { // its path is none
		return nil, err
	}
	if len(text) > parserSpaceBytes {
		return s, nil
	}
	if p.spaces == nil || len(p.spaces) >= parserSpaces {
		p.spaces = map[string]*batchlog.Space{}
	}
	p.spaces[string(text)] = s
	return s, nil
}

// Value is the bytes that a VALUE stands for, never nil. They may share memory with text.
func Value(text []byte) ([]byte, error) {
	if text[0] == '"' {
		return String(text)
	}
	var value []byte
	err := EachMember(text, func(name string, text []byte) error {
		if name != "$base64" {
			return Unknown(name)
		}
		digits, err := String(text)
		if err != nil {
			return err
		}
		value, err = base64.StdEncoding.AppendDecode([]byte{}, digits)
		return err
	})
	if err == nil {
		err = Missing(value != nil, "$base64")
	}
	return value, err
}

// blob is the reference that a BLOB stands for.
func blob(text []byte) (*batchlog.BlobRef, error) {
	ref := batchlog.BlobRef{Size: -1}
	hashed := false
	err := EachMember(text, func(name string, text []byte) error {
		switch name {
		case "sha256":
			digits, err := String(text)
			if err == nil && len(digits) != hex.EncodedLen(len(ref.Hash)) {
				err = fmt.Errorf("%d hex digits, a hash has %d", len(digits), hex.EncodedLen(len(ref.Hash)))
			}
			if err == nil {
				_, err = hex.Decode(ref.Hash[:], digits)
			}
			hashed = true
			return Within(name, err)
		case "size":
			n, err := strconv.ParseInt(string(text), 10, 64)
			tooLarge := errors.Is(err, strconv.ErrRange) && n > 0 || n > batchlog.MaxBlobBytes
			switch {
			case tooLarge:
				err = &batchlog.LimitError{What: "blob", Size: n, Limit: batchlog.MaxBlobBytes}
			case err != nil || n < 0:
				err = fmt.Errorf("%s is no number of bytes", shortened(string(text)))
			}
			ref.Size = n
			return Within(name, err)
		}
		return Unknown(name)
	})
	if err == nil {
		err = Missing(hashed, "sha256")
	}
	if err == nil {
		err = Missing(ref.Size >= 0, "size")
	}
	return &ref, err
}
