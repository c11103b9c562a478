package subprocess

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/opjson"
)

// scanLimit is how many entries a scan is answered with if it does not say.
const scanLimit = 1000

// A message is a line of the worker: one of its fields is set.
type message struct {
	get   *getRequest
	scan  *scanRequest
	ops   []byte  // a JSON array; it shares memory with the line
	error *string // the worker's own

	first batchlog.ID // of the window that ops or error is for; 0: it is not said
}

type getRequest struct {
	space *batchlog.Space
	key   batchlog.Key
}

type scanRequest struct {
	space   *batchlog.Space
	keys    batchlog.Range
	limit   int
	reverse bool
}

// parseHello returns an error if line is not the worker's side of the handshake.
func parseHello(line []byte) error {
	if err := opjson.Check(line); err != nil {
		return err
	}
	version := ""
	err := opjson.EachMember(line, func(name string, value []byte) error {
		switch name {
		case "batchlog":
			version = string(value)
			return nil
		case "name": // for people who read along
			_, err := opjson.String(value)
			return opjson.Within(name, err)
		}
		return opjson.Unknown(name)
	})
	if err == nil {
		err = opjson.Missing(version != "", "batchlog")
	}
	if err == nil && version != strconv.Itoa(Version) {
		err = fmt.Errorf("it speaks version %s of the protocol, and this is version %d", version, Version)
	}
	return err
}

// parseMessage is what a line of the worker says. The spaces in it are those of parser's database.
func parseMessage(line []byte, parser *opjson.Parser) (m message, err error) {
	if err := opjson.Check(line); err != nil {
		return m, err
	}
	said := 0
	err = opjson.EachMember(bytes.TrimLeft(line, " \t\r"), func(name string, value []byte) (err error) {
		said++
		switch name {
		case "get":
			m.get, err = parseGet(value, parser)
		case "scan":
			m.scan, err = parseScan(value, parser)
		case "ops":
			m.ops = value
		case "error":
			var text []byte
			text, err = opjson.String(value)
			s := string(text)
			m.error = &s
		case "first":
			said--
			var n uint64
			n, err = strconv.ParseUint(string(value), 10, 64)
			m.first = batchlog.ID(n)
		default:
			return opjson.Unknown(name)
		}
		return opjson.Within(name, err)
	})
	switch {
	case err != nil:
		return m, err
	case said != 1:
		return m, errors.New("it has to say one thing: get, scan, ops or error")
	case m.first != 0 && m.ops == nil && m.error == nil:
		return m, opjson.Unknown("first")
	}
	return m, nil
}

func parseGet(text []byte, parser *opjson.Parser) (*getRequest, error) {
	var r getRequest
	err := opjson.EachMember(text, func(name string, value []byte) (err error) {
		switch name {
		case "space":
			r.space, err = parser.Space(value)
		case "key":
			err = r.key.UnmarshalJSON(value)
		default:
			return opjson.Unknown(name)
		}
		return opjson.Within(name, err)
	})
	if err == nil {
		err = opjson.Missing(r.space != nil, "space")
	}
	if err == nil {
		err = opjson.Missing(r.key != nil, "key")
	}
	return &r, err
}

func parseScan(text []byte, parser *opjson.Parser) (*scanRequest, error) {
	r := scanRequest{limit: scanLimit}
	bounds := batchlog.Range{}
	low := 0 // how many lower bounds it has
	err := opjson.EachMember(text, func(name string, value []byte) (err error) {
		switch name {
		case "space":
			r.space, err = parser.Space(value)
		case "prefix":
			var k batchlog.Key
			if err = k.UnmarshalJSON(value); err == nil {
				r.keys, err = opjson.PrefixRange(k)
			}
		case "low":
			low++
			err = bounds.Low.UnmarshalJSON(value)
		case "after":
			low++
			err = bounds.Low.UnmarshalJSON(value)
			bounds.Low = append(bounds.Low, 0) // the key that comes next
		case "high":
			err = bounds.High.UnmarshalJSON(value)
		case "limit":
			err = json.Unmarshal(value, &r.limit)
			if err == nil && r.limit < 1 {
				err = fmt.Errorf("%d is less than 1", r.limit)
			}
		case "reverse":
			err = json.Unmarshal(value, &r.reverse)
		default:
			return opjson.Unknown(name)
		}
		return opjson.Within(name, err)
	})
	if err == nil {
		err = opjson.Missing(r.space != nil, "space")
	}
	if err == nil && low > 1 {
		err = errors.New("low and after exclude each other")
	}
	if bytes.Compare(bounds.Low, r.keys.Low) > 0 {
		r.keys.Low = bounds.Low
	}
	if bounds.High != nil && (r.keys.High == nil || bytes.Compare(bounds.High, r.keys.High) < 0) {
		r.keys.High = bounds.High
	}
	return &r, err
}
