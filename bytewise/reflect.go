package bytewise

import (
	"reflect"
	"time"
)

// appendReflect appends a v of a type that [appendValue] does not list: named types, the less common sizes of numbers,
// slices and arrays of other things than any.
func appendReflect(dst []byte, v any, depth int) ([]byte, error) {
	return appendReflected(dst, reflect.ValueOf(v), depth)
}

// appendReflected does without Value.Interface, for one use of it would make the arguments of all callers of Append escape.
func appendReflected(dst []byte, v reflect.Value, depth int) ([]byte, error) {
	switch v.Kind() {
	case reflect.Bool:
		return appendBool(dst, v.Bool()), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return appendInt(dst, v.Int(), v.Type().String())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return appendUint(dst, v.Uint(), v.Type().String())
	case reflect.Float32, reflect.Float64:
		return appendFloat(dst, v.Float(), v.Type().String())
	case reflect.String:
		return appendString(dst, v.String(), depth, v.Type().String())
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return appendBinary(dst, reflectedBytes(v), depth), nil
		}
		return appendReflectedArray(dst, v, depth)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[UndefinedType]() {
			return append(dst, TagUndefined), nil
		}
	}
	return dst, &ValueError{v.Type().String(), "no encoding for this type"}
}

func appendReflectedArray(dst []byte, v reflect.Value, depth int) (_ []byte, err error) {
	if depth == MaxDepth {
		return dst, &ValueError{v.Type().String(), tooDeep}
	}
	dst = append(dst, TagArray)
	switch v.Type().Elem() {
	case reflect.TypeFor[any](): // as in type Path []any
		for _, e := range elements[any](v) {
			if dst, err = appendValue(dst, e, depth+1); err != nil {
				return dst, err
			}
		}
	case reflect.TypeFor[time.Time]():
		for _, t := range elements[time.Time](v) {
			if dst, err = appendTime(dst, t); err != nil {
				return dst, err
			}
		}
	default:
		for i := range v.Len() {
			if dst, err = appendReflected(dst, v.Index(i), depth+1); err != nil {
				return dst, err
			}
		}
	}
	return append(dst, TagEnd), nil
}

// reflectedBytes returns the bytes of v, a slice or an array. An array in an interface has no address, so it is copied.
func reflectedBytes(v reflect.Value) []byte {
	if v.Kind() == reflect.Slice || v.CanAddr() {
		return v.Bytes()
	}
	b := make([]byte, v.Len())
	for i := range b {
		b[i] = byte(v.Index(i).Uint())
	}
	return b
}

// elements returns a copy of v, a slice or an array of E.
func elements[E any](v reflect.Value) []E {
	s := make([]E, v.Len())
	reflect.Copy(reflect.ValueOf(s), v)
	return s
}
