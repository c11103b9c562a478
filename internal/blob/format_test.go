package blob

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var update = flag.Bool("update", false, "write the golden file anew; one that was released stays as it is for ever")

// goldenContent has two chunks.
func goldenContent() []byte {
	b := make([]byte, chunkBytes+19)
	for i := range b {
		b[i] = byte(i * i >> 8)
	}
	return b
}

// The file that version 1 made once is read for ever, and today's writer still makes the same.
func TestGolden(t *testing.T) {
	const name = "testdata/blob-v1.bin"
	content := goldenContent()
	mem := vfs.NewMem()
	s := open(t, mem, dir)
	ref := put(t, s, content)
	made := readFile(t, mem, s.path(ref.Hash))
	if *update {
		if err := os.WriteFile(name, made, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(made, golden) {
		t.Error("today's file is another one")
	}
	s = open(t, vfs.NewMem(), dir)
	if err := s.opts.FS.MkdirAll(filepath.Dir(s.path(ref.Hash)), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.opts.FS, s.path(ref.Hash), golden)
	wantBlob(t, s, ref, content)
}

// tableOf is the table of a file with that content.
func tableOf(content []byte) (table []byte) {
	for len(content) > 0 {
		n := min(len(content), chunkBytes)
		table = le.AppendUint32(table, crc32.Checksum(content[:n], castagnoli))
		content = content[n:]
	}
	return table
}

// resum makes the sum of a footer right.
func resum(footer []byte) []byte {
	le.PutUint32(footer[footerSum:], crc32.Checksum(footer[:footerSum], castagnoli))
	return footer
}

// newerVersion is the file as the version after this one might write it.
func newerVersion(file []byte) []byte {
	file = bytes.Clone(file)
	footer := file[len(file)-footerBytes:]
	le.PutUint32(footer[footerVersion:], version+1)
	clear(footer[footerChunk:footerSum])
	resum(footer)
	return file
}

func TestVersions(t *testing.T) {
	b := makeEnd(nil, Ref{Hash: sha256.Sum256(nil)})
	if foot, err := parseFooter(b, "x", footerBytes); err != nil || foot != (footer{hash: sha256.Sum256(nil)}) {
		t.Errorf("%v, %v", foot, err)
	}
	var newer *VersionError
	if _, err := parseFooter(newerVersion(b), "x", 1000); !errors.As(err, &newer) || *newer != (VersionError{"x", 2, 1}) {
		t.Error(err)
	}
	for _, at := range []int{footerVersion, footerChunk} {
		zero := bytes.Clone(b)
		le.PutUint32(zero[at:], 0)
		_, err := parseFooter(resum(zero), "x", footerBytes)
		_ = damage(t, err)
	}
}

// A footer that is accepted is written as it was read, and fits its file; any other is damage or of a newer version.
func FuzzParseFooter(f *testing.F) {
	for _, size := range []int64{0, 1, chunkBytes, 1 << 40, 1<<63 - 1} {
		table := make([]byte, min(chunks(size), 10)*sumBytes)
		b := makeEnd(table, Ref{Hash{1, 2, 3}, size})[len(table):]
		f.Add(b, fileSize(size), false)
		f.Add(newerVersion(b), fileSize(size), false)
	}
	f.Add(make([]byte, footerBytes), int64(footerBytes), true)
	f.Add([]byte(footerMagic), int64(8), false)
	f.Fuzz(func(t *testing.T, b []byte, fileBytes int64, mend bool) {
		if mend && len(b) == footerBytes {
			copy(b, footerMagic)
			resum(b)
		}
		foot, err := parseFooter(b, "x", fileBytes)
		var newer *VersionError
		switch {
		case errors.As(err, &newer):
			if newer.Version <= version || newer.Known != version {
				t.Errorf("refused as a newer version: %v", err)
			}
		case err != nil:
			if d := damage(t, err); d.Offset < 0 || d.Offset > max(0, fileBytes) {
				t.Error(err)
			}
		default:
			got := makeEnd(nil, Ref{foot.hash, foot.size})
			le.PutUint32(got[footerTable:], foot.table)
			if !bytes.Equal(resum(got), b) {
				t.Errorf("%x is read as %v, which is written as %x", b, foot, got)
			}
			if foot.size < 0 || foot.size+chunks(foot.size)*sumBytes+footerBytes != fileBytes {
				t.Errorf("content of %d bytes in a file of %d", foot.size, fileBytes)
			}
		}
	})
}
