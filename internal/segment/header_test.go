package segment

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/bytespace/batchlog"
)

func TestHeader(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		h := Header{Version: r.Uint32N(Version) + 1, Epoch: batchlog.Epoch(r.Uint64()), First: batchlog.ID(r.Uint64()), Log: r.Uint32()}
		for i := range h.Database {
			h.Database[i], h.Segment[i] = byte(r.Uint32()), byte(r.Uint32())
		}
		page := AppendHeader([]byte("before"), h)
		if len(page) != len("before")+HeaderSize || string(page[:6]) != "before" {
			t.Fatalf("header takes %d bytes", len(page)-6)
		}
		page = page[6:]
		if got, err := ParseHeader(page, "x.seg"); err != nil || got != h {
			t.Fatalf("%+v, %v, want %+v", got, err, h)
		}
		if _, err := ParseHeader(page[:headerEnd], "x.seg"); err != nil {
			t.Fatal(err) // what is behind it has no meaning
		}
		for n := range headerEnd {
			if _, err := ParseHeader(page[:n], "x.seg"); !errors.Is(err, batchlog.ErrCorrupt) {
				t.Fatalf("header of %d bytes: %v", n, err)
			}
		}
	}
}

// Every change of one byte is found; behind the header it has no meaning.
func TestHeaderFlips(t *testing.T) {
	page := AppendHeader(nil, testHeader)
	for i := range page {
		for x := 1; x < 256; x += 1 + 50*(i/headerEnd) {
			b := bytes.Clone(page)
			b[i] ^= byte(x)
			h, err := ParseHeader(b, "x.seg")
			switch {
			case i >= headerEnd && (err != nil || h != testHeader):
				t.Fatalf("byte %d: %v", i, err)
			case i < headerEnd:
				if d := damage(t, err); d.File != "x.seg" || d.Offset != 0 {
					t.Fatalf("byte %d: %+v", i, d)
				}
			}
		}
	}
}

// A newer format is refused by name, also when nothing else of the header makes sense to this version.
func TestHeaderVersion(t *testing.T) {
	h := testHeader
	h.Version, h.Codec = Version+1, 7
	_, err := ParseHeader(AppendHeader(nil, h), "dir/x.seg")
	var newer *batchlog.VersionError
	if !errors.As(err, &newer) || *newer != (batchlog.VersionError{What: "dir/x.seg", Version: Version + 1, Known: Version}) {
		t.Fatalf("error %v", err)
	}
	if !errors.Is(err, batchlog.ErrUnsupported) || errors.Is(err, batchlog.ErrCorrupt) {
		t.Fatalf("error %v", err)
	}
	h.Version = 0
	if _, err := ParseHeader(AppendHeader(nil, h), "x.seg"); !errors.Is(err, errHeaderZero) || !errors.Is(err, batchlog.ErrCorrupt) {
		t.Fatalf("version 0: %v", err)
	}
	h.Version = Version
	_, err = ParseHeader(AppendHeader(nil, h), "x.seg")
	if !errors.Is(err, errHeaderCodec) || !errors.Is(err, batchlog.ErrCorrupt) {
		t.Fatalf("unknown codec: %v", err)
	}
}

// Files of different segments take each other's groups for none of theirs.
func TestHeaderSalt(t *testing.T) {
	other := testHeader
	other.Segment[7]++
	if other.Salt() == testHeader.Salt() || other.Chain() == testHeader.Chain() {
		t.Error("segments of different uuids have the same salt or chain")
	}
	other = testHeader
	other.First++
	if other.Chain() == testHeader.Chain() {
		t.Error("segments of different first commits have the same chain")
	}
}

func TestUUID(t *testing.T) {
	u := UUID{0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 1, 2, 3, 4, 5, 6, 7, 8}
	if got := u.String(); got != "12345678-9abc-def0-0102-030405060708" {
		t.Error(got)
	}
}
