package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/bytespace/batchlog"
)

// The lines that write reads and tail prints: a batch, or a commit, as one JSON object.
//
//	{"ops":[OP,…],"token":"…","labels":{"name":"value",…}}
//	{"id":7,"time":"RFC 3339","labels":{…},"ops":[OP,…]}
//
// where an OP is one of
//
//	{"put":{"space":SPACE,"key":KEY,"value":VALUE}}
//	{"del":{"space":SPACE,"key":KEY}}
//	{"delRange":{"space":SPACE,"low":KEY,"high":KEY}}     low and high may be left out: no bound
//
// SPACE is a string, the path with slashes, or an array of the path's parts; KEY is as batchlog.Key has it;
// VALUE is a string, or {"$base64":"…"} for bytes that are not UTF-8.

// A lineParser makes batches of lines. It remembers the spaces that it met, as lines mostly have the same few.
type lineParser struct {
	db     *batchlog.DB
	spaces map[string]*batchlog.Space
}

// parserSpaces bounds lineParser.spaces; beyond, it starts anew.
const parserSpaces = 4096

// parse makes b the batch that line says.
func (p *lineParser) parse(line []byte, b *batchlog.Batch) error {
	b.Reset()
	if err := checkJSON(line); err != nil {
		return err
	}
	found := false
	err := eachMember(space(line), func(name string, value []byte) error {
		switch name {
		case "ops":
			found = true
			return eachItem(value, func(i int, op []byte) error {
				if err := p.op(op, b); err != nil {
					return fmt.Errorf("op %d: %w", i+1, err)
				}
				return nil
			})
		case "token":
			token, err := stringOf(value)
			b.Token = string(token)
			return within(name, err)
		case "labels":
			b.Labels = map[string]string{}
			return within(name, eachMember(value, func(label string, value []byte) error {
				text, err := stringOf(value)
				b.Labels[label] = string(text)
				return within(label, err)
			}))
		}
		return unknown(name)
	})
	if err != nil {
		return err
	}
	return missing(found, "ops")
}

// op adds one op to b.
func (p *lineParser) op(text []byte, b *batchlog.Batch) error {
	count := 0
	err := eachMember(text, func(name string, value []byte) error {
		count++
		if count > 1 {
			return fmt.Errorf("%q is a second op in one object; give each its own", name)
		}
		kind, ok := map[string]batchlog.OpKind{"put": batchlog.OpPut, "del": batchlog.OpDelete, "delRange": batchlog.OpDeleteRange}[name]
		if !ok {
			return unknown(name)
		}
		return within(name, p.opOf(kind, value, b))
	})
	if err == nil && count == 0 {
		return errors.New("an empty object; write put, del or delRange")
	}
	return err
}

func (p *lineParser) opOf(kind batchlog.OpKind, text []byte, b *batchlog.Batch) error {
	var (
		s              *batchlog.Space
		key, low, high batchlog.Key
		value          []byte
	)
	err := eachMember(text, func(name string, text []byte) (err error) {
		single := kind != batchlog.OpDeleteRange
		switch {
		case name == "space":
			s, err = p.space(text)
		case name == "key" && single:
			err = key.UnmarshalJSON(text)
		case name == "value" && kind == batchlog.OpPut:
			value, err = valueOf(text)
		case name == "low" && !single:
			err = low.UnmarshalJSON(text)
		case name == "high" && !single:
			err = high.UnmarshalJSON(text)
		default:
			return unknown(name)
		}
		return within(name, err)
	})
	if err == nil {
		err = missing(s != nil, "space")
	}
	if err == nil && kind != batchlog.OpDeleteRange {
		err = missing(key != nil, "key")
	}
	if err == nil && kind == batchlog.OpPut {
		err = missing(value != nil, "value")
	}
	if err != nil {
		return err
	}
	switch kind {
	case batchlog.OpPut:
		b.Put(s, key, value)
	case batchlog.OpDelete:
		b.Delete(s, key)
	case batchlog.OpDeleteRange:
		b.DeleteRange(s, batchlog.Between(low, high))
	}
	return nil
}

func (p *lineParser) space(text []byte) (*batchlog.Space, error) {
	if s := p.spaces[string(text)]; s != nil {
		return s, nil
	}
	name := text
	if text[0] != '[' {
		var err error
		if name, err = stringOf(text); err != nil {
			return nil, err
		}
	}
	path, err := parsePath(string(name))
	if err != nil {
		return nil, err
	}
	if p.spaces == nil || len(p.spaces) >= parserSpaces {
		p.spaces = map[string]*batchlog.Space{}
	}
	s := p.db.Space(path...)
	p.spaces[string(text)] = s
	return s, nil
}

// valueOf is the bytes that a VALUE stands for, never nil.
func valueOf(text []byte) ([]byte, error) {
	if text[0] == '"' {
		return stringOf(text)
	}
	var value []byte
	err := eachMember(text, func(name string, text []byte) error {
		if name != "$base64" {
			return unknown(name)
		}
		digits, err := stringOf(text)
		if err != nil {
			return err
		}
		value, err = base64.StdEncoding.AppendDecode([]byte{}, digits)
		return err
	})
	if err == nil {
		err = missing(value != nil, "$base64")
	}
	return value, err
}

func unknown(name string) error { return fmt.Errorf("unknown field %q", name) }

func missing(found bool, name string) error {
	if found {
		return nil
	}
	return fmt.Errorf("field %q is missing", name)
}

// within is err with the name of the field it is in.
func within(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

// appendCommit appends c as a line, its end included.
func appendCommit(dst []byte, c *batchlog.Commit) ([]byte, error) {
	dst = fmt.Appendf(dst, `{"id":%d,"time":"`, c.ID)
	dst = c.Time.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","labels":{`...)
	for i, name := range slices.Sorted(maps.Keys(c.Labels)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, []byte(name))
		dst = append(dst, ':')
		dst = appendString(dst, []byte(c.Labels[name]))
	}
	dst = append(dst, `},"ops":[`...)
	first := true
	for op, err := range c.Ops() {
		if err != nil {
			return dst, err
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		if dst, err = appendOp(dst, op); err != nil {
			return dst, err
		}
	}
	return append(dst, "]}\n"...), nil
}

func appendOp(dst []byte, op batchlog.Op) (_ []byte, err error) {
	dst = fmt.Appendf(dst, `{"%s":{"space":`, op.Kind)
	if text := op.Space.String(); text[0] == '[' {
		dst = append(dst, text...)
	} else {
		dst = appendString(dst, []byte(text))
	}
	switch op.Kind {
	case batchlog.OpDeleteRange:
		if len(op.Key) > 0 {
			if dst, err = appendKey(append(dst, `,"low":`...), op.Key); err != nil {
				return dst, err
			}
		}
		if op.High != nil {
			dst, err = appendKey(append(dst, `,"high":`...), op.High)
		}
	default:
		dst, err = appendKey(append(dst, `,"key":`...), op.Key)
		if op.Kind == batchlog.OpPut {
			dst = appendValue(append(dst, `,"value":`...), op.Value)
		}
	}
	return append(dst, "}}"...), err
}

func appendKey(dst []byte, k batchlog.Key) ([]byte, error) {
	text, err := k.MarshalJSON()
	return append(dst, text...), err
}

// appendValue appends a value: a string where its bytes are UTF-8.
func appendValue(dst, value []byte) []byte {
	if utf8.Valid(value) {
		return appendString(dst, value)
	}
	dst = append(dst, `{"$base64":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, value)
	return append(dst, `"}`...)
}
