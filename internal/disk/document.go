package disk

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
)

// A document is a small file of text that is replaced whole: a line that says what it is, in which version, and the CRC-32C of
// the rest; then the rest, as a rule JSON.
//
//	batchlog database 1 5d1c9a3f
//	{ "uuid": "…", "epoch": 1 }
const documentLine = "batchlog %s %d %08x\n"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendDocument appends a document of that kind, which is one word.
func AppendDocument(dst []byte, kind string, version uint32, body []byte) []byte {
	dst = fmt.Appendf(dst, documentLine, kind, version, crc32.Checksum(body, castagnoli))
	return append(dst, body...)
}

// ParseDocument is the version and the body of a document of that kind, or what is wrong with it. The body is a part of text.
func ParseDocument(text []byte, kind string) (version uint32, body []byte, err error) {
	line, body, _ := bytes.Cut(text, []byte("\n"))
	var word string
	var sum uint32
	first := string(line) + "\n"
	if n, err := fmt.Sscanf(first, documentLine, &word, &version, &sum); n != 3 || err != nil || word != kind || fmt.Sprintf(documentLine, word, version, sum) != first {
		return 0, nil, fmt.Errorf("first line is not that of a %s", kind)
	}
	if crc32.Checksum(body, castagnoli) != sum {
		return 0, nil, errors.New("content does not match its sum")
	}
	if version == 0 {
		return 0, nil, fmt.Errorf("no %s has format version 0", kind)
	}
	return version, body, nil
}
