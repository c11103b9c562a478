package bytewise_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bytespace/batchlog/bytewise"
)

func ExampleAppend() {
	b, err := bytewise.Append(nil, []any{"users", 42})
	fmt.Printf("%x %v\n", b, err)

	_, err = bytewise.Append(nil, 1<<53+1)
	fmt.Println(err)
	// Output:
	// a07075736572730042404500000000000000 <nil>
	// bytewise: encode int: 9007199254740993 is not exact as a float64
}

// Bytes sort as values do.
func ExampleEncode() {
	var keys [][]byte
	for _, v := range []any{"b", []any{"a", 2}, []any{"a"}, -1, time.UnixMilli(0), nil, 10, 9, true, bytewise.Undefined} {
		b, err := bytewise.Encode(v)
		if err != nil {
			panic(err)
		}
		keys = append(keys, b)
	}
	slices.SortFunc(keys, bytes.Compare)
	for _, k := range keys {
		v, err := bytewise.Decode(k)
		if err != nil {
			panic(err)
		}
		fmt.Println(v)
	}
	// Output:
	// <nil>
	// true
	// -1
	// 9
	// 10
	// 1970-01-01 00:00:00 +0000 UTC
	// b
	// [a]
	// [a 2]
	// undefined
}

func ExampleDecode() {
	v, err := bytewise.Decode([]byte("\xa0papb")) // the last string is not closed
	var syntaxErr *bytewise.SyntaxError
	if errors.As(err, &syntaxErr) {
		fmt.Println(v, syntaxErr.Offset)
	}
	fmt.Println(err)
	// Output:
	// <nil> 5
	// bytewise: decode: offset 5: unexpected end
}

// A space's key is its path, closed, and the key's own bytes.
func ExampleArrayLen() {
	path := []byte{bytewise.TagArray}
	for _, part := range []any{"users", "eu"} {
		var err error
		if path, err = bytewise.AppendElement(path, part); err != nil {
			panic(err)
		}
	}
	stored := append(append(path, bytewise.TagEnd), "alice"...)

	n, err := bytewise.ArrayLen(stored)
	fmt.Printf("%q %v\n", stored[n:], err)
	// Output: "alice" <nil>
}

func ExamplePrefixRange() {
	low, high, err := bytewise.PrefixRange("user")
	if err != nil {
		panic(err)
	}
	for _, v := range []any{[]any{"user"}, []any{"user", 1}, []any{"users"}, "user"} {
		b, err := bytewise.Encode(v)
		if err != nil {
			panic(err)
		}
		fmt.Println(v, bytes.Compare(low, b) <= 0 && bytes.Compare(b, high) < 0)
	}
	// Output:
	// [user] true
	// [user 1] true
	// [users] false
	// user false
}

func ExampleStringPrefixRange() {
	low, high := bytewise.StringPrefixRange("user/")
	fmt.Printf("%q %q\n", low, high)
	// Output: "puser/" "puser/\xff"
}

func ExampleBinaryPrefixRange() {
	low, high := bytewise.BinaryPrefixRange([]byte{0x01, 0xff})
	fmt.Printf("%x %x\n", low, high)
	// Output: 6001ff 6002
}
