package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/opjson"
)

// csvFlags are the flags of import csv.
type csvFlags struct {
	loadFlags
	header   string
	noHeader bool
	comma    string
}

func newImportCSV(a *app) *cobra.Command {
	var flags csvFlags
	cmd := &cobra.Command{
		Use:   "csv FILE",
		Short: "Load rows of CSV as keys and values",
		Long: `Each row is a line of columns with commas between (--comma). A column that has commas, quotes or line ends in it is in double quotes, with a
quote in it written twice. The first row names the columns; --header says their names where the file does not, and with --no-header they are 1, 2, 3, …
The key of a row is the text of the column --key; of several columns the array of their texts. Its value is a JSON object of the columns, all
of them strings, or the text of the column --value alone. Rows must have as many columns as the header. Empty lines are passed over. A row has
at most 64 MiB; one whose last quote is never closed ends the import in any case.

` + loadHelp,
		Example: `  printf 'id,name\n7,alice\n8,"bob, the second"\n' > people.csv
  batchlog import csv people.csv --space people --key id
  printf 'cz;Brno;379466\n' | batchlog import csv - --space cities --key in,city --header 'in;city;people' --comma ';'
  batchlog import csv people.csv --space names --key id --value name --atomic
  cut -d, -f1 people.csv | batchlog import csv - --space ids --key 1 --no-header --from-line 2`,
		Args: takes(1, 1),
	}
	cmd.RunE = a.runs(func(ctx context.Context, args []string) error {
		p, err := newCSVParser(&flags)
		if err != nil {
			return err
		}
		return a.loadRows(ctx, args[0], flags.loadFlags, p.rows)
	})
	cmd.Flags().StringVar(&flags.header, "header", "", "the `NAMES` of the columns, separated as in the file, which then has none")
	cmd.Flags().BoolVar(&flags.noHeader, "no-header", false, "the file does not name its columns: they are 1, 2, 3, …")
	cmd.Flags().StringVar(&flags.comma, "comma", ",", `what stands between columns, one character; \t is a tab`)
	flags.add(cmd, "COLUMN")
	return cmd
}

// A csvParser makes rows of CSV.
type csvParser struct {
	comma     []byte
	numbered  bool     // there is no header
	keyNames  []string // columns that make the key
	valueName string   // column that is the value; "": all are

	columns int      // in the header; 0: it was not read yet
	members [][]byte // of the header: each name as it begins a member of a JSON object
	keys    []int    // columns
	value   int      // column; -1: all

	text   []byte // of the columns of a row, one behind the other
	ends   []int  // of each column in text
	quoted bool   // the last column is in a quote that is not closed yet
	buf    []byte
	parts  []any
}

func newCSVParser(f *csvFlags) (*csvParser, error) {
	comma := f.comma
	if comma == `\t` {
		comma = "\t"
	}
	if utf8.RuneCountInString(comma) != 1 || strings.ContainsAny(comma, "\"\r\n\ufffd\ufeff") {
		return nil, usagef("--comma %q is not one character that can stand between columns", f.comma)
	}
	if f.noHeader && f.given("header") {
		return nil, usagef("--header and --no-header exclude each other")
	}
	p := &csvParser{comma: []byte(comma), numbered: f.noHeader, valueName: f.value, value: -1}
	for _, name := range fieldNames(f.keys) {
		if strings.HasPrefix(name, "[") {
			path, err := fieldPath(name)
			if err != nil {
				return nil, err
			}
			if len(path) > 1 {
				return nil, usagef("--key %s names a field within another, which CSV has none of", name)
			}
			name = path[0]
		}
		p.keyNames = append(p.keyNames, name)
	}
	if !f.given("header") {
		return p, nil
	}
	done, err := p.feed([]byte(f.header))
	if err == nil && !done {
		err = errOpenQuote
	}
	if err == nil {
		err = p.setHeader()
	}
	if err != nil {
		return nil, usagef("--header: %w", err)
	}
	return p, nil
}

var (
	errOpenQuote = errors.New("a quote is never closed")
	errBareQuote = errors.New(`a quote within a column that does not begin with one; write it as "…""…"`)
	errAfter     = errors.New("text behind a closing quote; write a quote within quotes twice")
)

// rows is the rows in lines.
func (p *csvParser) rows(lines *lineReader) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		var r row
		for l := range lines.all() {
			if l.err != nil && !errors.Is(l.err, errLongLine) {
				yield(r, l.err)
				return
			}
			text := l.text
			if l.number == 1 {
				text = bytes.TrimPrefix(text, []byte(utf8BOM))
			}
			if !p.quoted {
				r = row{first: l.number, offset: l.offset}
				if l.err == nil && (len(text) == 0 || string(text) == "\r") {
					continue
				}
			}
			r.last = l.number
			done := true
			if l.err != nil || p.quoted && len(p.text)+len(text) > batchlog.MaxValueBytes {
				r.err, r.torn = errRowLength, true // where its quotes are is not known
			} else if done, r.err = p.feed(text); r.err != nil {
				done, p.quoted = true, false
			}
			if !done {
				continue
			}
			isHeader := p.columns == 0 && !p.numbered
			switch {
			case isHeader && r.err == nil:
				r.err = p.setHeader()
				if r.err == nil {
					continue
				}
				r.torn = true
			case isHeader:
				r.torn = true // without a header no row can be read
			case r.err == nil:
				r.key, r.value, r.err = p.row()
				r.torn = r.err != nil && p.columns == 0
			}
			if !yield(r, nil) {
				return
			}
		}
		switch {
		case p.quoted && lines.ctx.Err() == nil:
			r.err, r.torn = errOpenQuote, true
			yield(r, nil)
		case p.columns == 0 && !p.numbered && lines.ctx.Err() == nil:
			yield(row{first: 1, err: errors.New("the file is empty: there is no header"), torn: true}, nil)
		}
	}
}

// feed takes a line of a row, and says whether the row ends with it. The first line of a row empties text and ends.
func (p *csvParser) feed(line []byte) (done bool, err error) {
	inQuotes := p.quoted
	if !inQuotes {
		p.text, p.ends = p.text[:0], p.ends[:0]
	}
	p.quoted = false
	for {
		if !inQuotes && len(line) > 0 && line[0] == '"' {
			inQuotes, line = true, line[1:]
		}
		if inQuotes {
			var closed bool
			if line, closed = p.unquote(line); !closed {
				p.quoted = true
				return false, nil
			}
			inQuotes = false
			p.ends = append(p.ends, len(p.text))
			if len(line) == 0 || string(line) == "\r" {
				return true, nil
			}
			if !bytes.HasPrefix(line, p.comma) {
				return true, errAfter
			}
			line = line[len(p.comma):]
			continue
		}
		column, rest, more := bytes.Cut(line, p.comma)
		if !more {
			column = bytes.TrimSuffix(column, []byte("\r"))
		}
		if bytes.IndexByte(column, '"') >= 0 {
			return true, errBareQuote
		}
		p.text = append(p.text, column...)
		p.ends = append(p.ends, len(p.text))
		if !more {
			return true, nil
		}
		line = rest
	}
}

// unquote adds what is in quotes to text, up to the closing one or the end of the line.
func (p *csvParser) unquote(line []byte) (rest []byte, closed bool) {
	for {
		i := bytes.IndexByte(line, '"')
		if i < 0 {
			p.text = append(append(p.text, line...), '\n')
			return nil, false
		}
		p.text = append(p.text, line[:i]...)
		if line = line[i+1:]; len(line) == 0 || line[0] != '"' {
			return line, true
		}
		p.text = append(p.text, '"')
		line = line[1:]
	}
}

// column is the text of a column of the row that was read.
func (p *csvParser) column(i int) []byte {
	start := 0
	if i > 0 {
		start = p.ends[i-1]
	}
	return p.text[start:p.ends[i]]
}

// setHeader takes the row that was read for the header.
func (p *csvParser) setHeader() error {
	if !utf8.Valid(p.text) {
		return errNotUTF8
	}
	var columns []string
	for i := range p.ends {
		name := string(p.column(i))
		if slices.Contains(columns, name) {
			return fmt.Errorf("the header has column %q twice", name)
		}
		columns = append(columns, name)
	}
	return p.setColumns(columns)
}

func (p *csvParser) setColumns(columns []string) error {
	find := func(name string) (int, error) {
		i := slices.Index(columns, name)
		if i < 0 {
			return 0, fmt.Errorf("there is no column %q; there are %s", name, clipped(strings.Join(columns, ", "), 120, "…"))
		}
		return i, nil
	}
	for _, name := range p.keyNames {
		i, err := find(name)
		if err != nil {
			return err
		}
		p.keys = append(p.keys, i)
	}
	if p.valueName != "" {
		var err error
		if p.value, err = find(p.valueName); err != nil {
			return err
		}
	}
	for _, name := range columns {
		p.members = append(p.members, append(opjson.AppendString(nil, []byte(name)), ':'))
	}
	p.columns = len(columns)
	return nil
}

// row is the key and the value of the row that was read; the value is valid until the next one is.
func (p *csvParser) row() (key batchlog.Key, value []byte, err error) {
	if p.columns == 0 { // there is no header
		columns := make([]string, len(p.ends))
		for i := range columns {
			columns[i] = strconv.Itoa(i + 1)
		}
		if err := p.setColumns(columns); err != nil {
			return nil, nil, err
		}
	}
	if len(p.ends) != p.columns {
		return nil, nil, fmt.Errorf("%s, where there should be %d", counted(len(p.ends), "column"), p.columns)
	}
	if !utf8.Valid(p.text) {
		return nil, nil, errNotUTF8
	}
	p.parts = p.parts[:0]
	for _, i := range p.keys {
		p.parts = append(p.parts, string(p.column(i)))
	}
	if key, err = batchlog.KeyOf(p.parts...); err != nil {
		return nil, nil, err
	}
	if p.value >= 0 {
		return key, p.column(p.value), nil
	}
	p.buf = append(p.buf[:0], '{')
	for i, member := range p.members {
		if i > 0 {
			p.buf = append(p.buf, ',')
		}
		p.buf = append(p.buf, member...)
		p.buf = opjson.AppendString(p.buf, p.column(i))
	}
	p.buf = append(p.buf, '}')
	return key, p.buf, nil
}
