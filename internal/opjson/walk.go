package opjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Reading JSON strictly: package encoding/json takes the last of two members with one name, matches names
// without regard to case and puts U+FFFD where a string is not Unicode. A batch that
// was not meant that way would be written. So json.Valid says whether it is JSON, and these
// functions walk over what it is.

var errSurrogate = errors.New(`half of a surrogate pair is no character; write bytes that are not UTF-8 as {"$base64":"…"}`)

// Check reports where and why text is not one JSON value in UTF-8.
func Check(text []byte) error {
	if !utf8.Valid(text) {
		return errors.New(`not UTF-8; write bytes that are not UTF-8 as {"$base64":"…"}`)
	}
	if json.Valid(text) {
		return nil
	}
	var syntax *json.SyntaxError
	var v json.RawMessage
	if err := json.Unmarshal(text, &v); errors.As(err, &syntax) {
		return fmt.Errorf("not JSON at byte %d: %w", syntax.Offset, err)
	}
	return errors.New("not JSON")
}

// EachMember calls fn for each member of a JSON value that must be an object. The text is one that [Check] accepts, without white space
// before it; value is part of it.
func EachMember(text []byte, fn func(name string, value []byte) error) error {
	if len(text) == 0 || text[0] != '{' {
		return fmt.Errorf("%s where an object should be", kindOf(text))
	}
	var seen names
	for rest := skipSpace(text[1:]); rest[0] != '}'; {
		end := valueEnd(rest)
		name, err := String(rest[:end])
		if err != nil {
			return err
		}
		here := string(name)
		if !seen.add(here) {
			return fmt.Errorf("field %s twice", quoted(here))
		}
		rest = skipSpace(skipSpace(rest[end:])[1:]) // the colon
		end = valueEnd(rest)
		if err := fn(here, rest[:end]); err != nil {
			return err
		}
		rest = skipSpace(rest[end:])
		if rest[0] == ',' {
			rest = skipSpace(rest[1:])
		}
	}
	return nil
}

// names is the members of an object that were met. Nearly all have a few.
type names struct {
	few  []string
	many map[string]struct{} // nil while there are few
}

// fewNames is how many names are compared one by one.
const fewNames = 8

// add adds a name. It reports false if it is there.
func (n *names) add(name string) bool {
	if n.many == nil && len(n.few) < fewNames {
		if slices.Contains(n.few, name) {
			return false
		}
		n.few = append(n.few, name)
		return true
	}
	if n.many == nil {
		n.many = map[string]struct{}{}
		for _, f := range n.few {
			n.many[f] = struct{}{}
		}
	}
	before := len(n.many)
	n.many[name] = struct{}{}
	return len(n.many) > before
}

// Member is the value of the member of a JSON value that path leads to: the first name is one of the value's own members, the next one of that, and so
// on. It is nil if one of them is missing. What has to be an object and is none is an error, and a name twice where it is looked for. The text is
// as for EachMember.
func Member(text []byte, path ...string) ([]byte, error) {
	for i, want := range path {
		if len(text) == 0 || text[0] != '{' {
			return nil, within(path[:i], fmt.Errorf("%s where an object should be", kindOf(text)))
		}
		var found []byte
		for rest := skipSpace(text[1:]); rest[0] != '}'; {
			end := valueEnd(rest)
			name := rest[1 : end-1]
			if bytes.IndexByte(name, '\\') >= 0 {
				var err error
				if name, err = String(rest[:end]); err != nil {
					return nil, within(path[:i], err)
				}
			}
			here := string(name) == want
			rest = skipSpace(skipSpace(rest[end:])[1:]) // the colon
			end = valueEnd(rest)
			if here && found != nil {
				return nil, within(path[:i], fmt.Errorf("field %s twice", quoted(want)))
			}
			if here {
				found = rest[:end]
			}
			rest = skipSpace(rest[end:])
			if rest[0] == ',' {
				rest = skipSpace(rest[1:])
			}
		}
		if found == nil {
			return nil, nil
		}
		text = found
	}
	return text, nil
}

// within is err with the names that lead to where it is.
func within(path []string, err error) error {
	if len(path) == 0 {
		return err
	}
	return Within(strings.Join(path, "."), err)
}

// EachItem calls fn for each item of a JSON value that must be an array, as EachMember does.
func EachItem(text []byte, fn func(i int, value []byte) error) error {
	if len(text) == 0 || text[0] != '[' {
		return fmt.Errorf("%s where an array should be", kindOf(text))
	}
	i := 0
	for rest := skipSpace(text[1:]); rest[0] != ']'; i++ {
		end := valueEnd(rest)
		if err := fn(i, rest[:end]); err != nil {
			return err
		}
		rest = skipSpace(rest[end:])
		if rest[0] == ',' {
			rest = skipSpace(rest[1:])
		}
	}
	return nil
}

// String is the characters of a JSON value that must be a string. Without escapes they share memory with text.
func String(text []byte) ([]byte, error) {
	if len(text) == 0 || text[0] != '"' {
		return nil, fmt.Errorf("%s where a string should be", kindOf(text))
	}
	if bytes.IndexByte(text, '\\') < 0 {
		return text[1 : len(text)-1], nil
	}
	if loneSurrogate(text) {
		return nil, errSurrogate
	}
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, err
	}
	return []byte(s), nil
}

// loneSurrogate reports whether a valid JSON string escapes one half of a surrogate pair without the other.
func loneSurrogate(text []byte) bool {
	high := false // the escape before was the first half
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			if high {
				return true
			}
			continue
		}
		i++
		var d byte
		if text[i] == 'u' {
			d = text[i+1] | 0x20
		}
		surrogate := d == 'd' && text[i+2] >= '8'
		low := surrogate && text[i+2]|0x20 >= 'c'
		if low != high {
			return true
		}
		high = surrogate && !low
		if text[i] == 'u' {
			i += 4
		}
	}
	return false
}

// valueEnd is the length of the JSON value that valid text begins with.
func valueEnd(text []byte) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',', ':', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
			continue
		default:
			continue
		}
		if depth == 0 {
			return i + 1
		}
	}
	return len(text)
}

// skipSpace is text without the white space that it begins with.
func skipSpace(text []byte) []byte {
	for len(text) > 0 && (text[0] == ' ' || text[0] == '\t' || text[0] == '\r' || text[0] == '\n') {
		text = text[1:]
	}
	return text
}

// kindOf names what kind of JSON value text is.
func kindOf(text []byte) string {
	if len(text) == 0 {
		return "nothing"
	}
	switch text[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f', 'n':
		return string(text)
	}
	return "a number"
}

// Unknown is the error for a member that should not be there.
func Unknown(name string) error { return fmt.Errorf("unknown field %s", quoted(name)) }

// quotedBytes is how much of a text an error holds: enough to find it, while it may be as large as a line.
const quotedBytes = 200

// quoted is s for an error.
func quoted(s string) string { return strconv.Quote(shortened(s)) }

// shortened is s, or its beginning if it is long.
func shortened(s string) string {
	if len(s) <= quotedBytes {
		return s
	}
	return strings.ToValidUTF8(s[:quotedBytes], "") + fmt.Sprintf("… (%d bytes)", len(s))
}

// Missing is the error for a member that was not found.
func Missing(found bool, name string) error {
	if found {
		return nil
	}
	return fmt.Errorf("field %q is missing", name)
}

// Within is err with the name of the field it is in.
func Within(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", shortened(name), err)
}
