package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/opjson"
)

func newImportNDJSON(a *app) *cobra.Command {
	var flags loadFlags
	cmd := &cobra.Command{
		Use:   "ndjson FILE",
		Short: "Load lines of JSON, each an object, as keys and values",
		Long: `Each line is a JSON object, a row. Its key is the value of the field --key, as a KEY: a string, number, true, false, null, or an array of such; of
several fields it is the array of their values. Its value is the line as it stands, without white space, or the field --value: a string's
characters, or else its JSON. A FIELD is a name, or names with dots between that lead to a field within; a name with dots or commas is
written as a JSON array: '["a.b"]'. Empty lines are passed over. A line has at most 64 MiB.

` + loadHelp,
		Example: `  echo '{"id":7,"name":"alice","home":{"city":"Brno"}}' > people.ndjson
  batchlog import ndjson people.ndjson --space people --key id
  batchlog import ndjson people.ndjson --space cities --key home.city,id --value name
  gzip people.ndjson; batchlog import ndjson people.ndjson.gz --space people --key id --token today --skip-bad
  echo '{"id":8}' | batchlog import ndjson - --space people --key id --atomic`,
		Args: takes(1, 1),
	}
	cmd.RunE = a.runs(func(ctx context.Context, args []string) error {
		p, err := newRowParser(&flags)
		if err != nil {
			return err
		}
		return a.loadRows(ctx, args[0], flags, func(lines *lineReader) iter.Seq2[row, error] { return p.rows(lines, flags.from) })
	})
	flags.add(cmd, "FIELD")
	return cmd
}

// A rowParser makes rows of lines of JSON.
type rowParser struct {
	keys  [][]string // paths of fields
	value []string   // path of a field; nil: the whole line

	buf  bytes.Buffer
	text []byte
}

func newRowParser(f *loadFlags) (*rowParser, error) {
	p := &rowParser{}
	for _, name := range fieldNames(f.keys) {
		path, err := fieldPath(name)
		if err != nil {
			return nil, err
		}
		p.keys = append(p.keys, path)
	}
	var err error
	if f.value != "" {
		p.value, err = fieldPath(f.value)
	}
	return p, err
}

// utf8BOM is what some programs begin text in UTF-8 with.
const utf8BOM = "\ufeff"

var errRowLength = fmt.Errorf("longer than %s bytes, which are as many as a value may have", countText(batchlog.MaxValueBytes))

// rows is the rows in lines. Those before line from are passed over unread.
func (p *rowParser) rows(lines *lineReader, from int64) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		for l := range lines.all() {
			r := row{first: l.number, last: l.number, offset: l.offset, err: l.err}
			text := l.text
			if l.number == 1 {
				text = bytes.TrimPrefix(text, []byte(utf8BOM))
			}
			switch {
			case errors.Is(l.err, errLongLine):
				r.err = errRowLength
			case l.err != nil:
				yield(r, l.err)
				return
			case len(bytes.Trim(text, " \t\r")) == 0, l.number < from:
				continue
			default:
				r.key, r.value, r.err = p.parse(text)
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

var errNotUTF8 = errors.New("not UTF-8")

// parse is the key and the value of a line, valid until the next call.
func (p *rowParser) parse(text []byte) (key batchlog.Key, value []byte, err error) {
	if !utf8.Valid(text) {
		return nil, nil, errNotUTF8
	}
	if err := opjson.Check(text); err != nil {
		return nil, nil, err
	}
	text = bytes.Trim(text, " \t\r")
	if key, err = p.key(text); err != nil {
		return nil, nil, err
	}
	if p.value != nil {
		if text, err = field(text, p.value); err != nil {
			return nil, nil, err
		}
		if text[0] == '"' {
			value, err = opjson.String(text)
			return key, value, err
		}
	}
	p.buf.Reset()
	err = json.Compact(&p.buf, text)
	return key, p.buf.Bytes(), err
}

// key is the key of a line that is valid JSON.
func (p *rowParser) key(text []byte) (key batchlog.Key, err error) {
	if len(p.keys) == 1 {
		of, err := field(text, p.keys[0])
		if err != nil {
			return nil, err
		}
		if of[0] == '"' { // nearly all: the short way
			s, err := opjson.String(of)
			if err != nil {
				return nil, opjson.Within(names(p.keys[0]), err)
			}
			return batchlog.KeyOf(string(s))
		}
		return key, key.UnmarshalJSON(of)
	}
	p.text = append(p.text[:0], '[')
	for i, path := range p.keys {
		of, err := field(text, path)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			p.text = append(p.text, ',')
		}
		p.text = append(p.text, of...)
	}
	err = key.UnmarshalJSON(append(p.text, ']'))
	return key, err
}

// field is the value of a field, which must be there.
func field(text []byte, path []string) ([]byte, error) {
	value, err := opjson.Member(text, path...)
	if err == nil {
		err = opjson.Missing(value != nil, names(path))
	}
	return value, err
}

// names is a path for people.
func names(path []string) string {
	text := path[0]
	for _, name := range path[1:] {
		text += "." + name
	}
	return text
}
